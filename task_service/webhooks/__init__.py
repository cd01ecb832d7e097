"""Webhooks: clients register URLs, and `python -m task_service work` sends each change of their user's tasks and projects there."""
