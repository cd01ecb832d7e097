"""`python -m auth_service run | migrate`."""

from auth_service.schema import migrations
from servicekit.commands import main


async def run() -> None:
    """Loads the service and serves."""
    from auth_service import app  # noqa: PLC0415 - a migration must not pay for it

    await app.run()


if __name__ == "__main__":
    main("auth_service", run, migrations())
