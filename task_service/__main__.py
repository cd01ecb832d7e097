"""`python -m task_service run | migrate`."""

from servicekit.process.commands import main
from servicekit.stores.migrate import packaged


async def run() -> None:
    """Loads the service and serves."""
    from task_service import app  # noqa: PLC0415 - a migration must not pay for it

    await app.run()


if __name__ == "__main__":
    main("task_service", run, packaged("task", "task_service"))
