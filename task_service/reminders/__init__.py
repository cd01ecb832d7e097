"""Reminders: the work of `python -m task_service work`, which logs each reminder in its user's change log when it is due."""
