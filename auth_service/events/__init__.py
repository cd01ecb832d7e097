"""The log of revoked sessions and deleted accounts that task_service reads."""
