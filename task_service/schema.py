"""The schema `task` in PostgreSQL. Apart from `app`, so that a migration need not load the whole service."""

from importlib import resources

from servicekit.migrate import Migrations


def migrations() -> Migrations:
    """All migrations of the schema, in order."""
    return Migrations("task", resources.files("task_service") / "migrations")
