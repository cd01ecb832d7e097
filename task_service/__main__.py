"""`python -m task_service run | migrate`."""

from servicekit.commands import main
from task_service.schema import migrations


async def run() -> None:
    """Loads the service and serves."""
    from task_service import app  # noqa: PLC0415 - a migration must not pay for it

    await app.run()


if __name__ == "__main__":
    main("task_service", run, migrations())
