"""`python -m auth_service run | migrate | keys`."""

from auth_service.key_commands import list_keys, replace_keys, rotate_keys
from auth_service.schema import migrations
from servicekit.commands import Command, main


async def run() -> None:
    """Loads the service and serves."""
    from auth_service import app  # noqa: PLC0415 - a migration must not pay for it

    await app.run()


if __name__ == "__main__":
    keys = Command("the keys that sign access tokens", {"list": list_keys, "rotate": rotate_keys, "replace": replace_keys})
    main("auth_service", run, migrations(), {"keys": keys})
