"""Entry point of `python -m task_service run | migrate`."""

from servicekit.process.commands import main
from servicekit.stores.migrate import packaged


async def run() -> None:
    """Imports the service and serves until SIGTERM."""
    from task_service import app  # noqa: PLC0415 - `migrate` starts faster without these imports

    await app.run()


if __name__ == "__main__":
    main("task_service", run, packaged("task", "task_service"))
