"""Entry point of `python -m auth_service run | migrate | keys`."""

from auth_service.keys.commands import list_keys, replace_keys, rotate_keys
from servicekit.process.commands import Command, main
from servicekit.stores.migrate import packaged


async def run() -> None:
    """Imports the service and serves until SIGTERM."""
    from auth_service import app  # noqa: PLC0415 - `migrate` and `keys` start faster without these imports

    await app.run()


if __name__ == "__main__":
    keys = Command("the keys that sign access tokens", {"list": list_keys, "rotate": rotate_keys, "replace": replace_keys})
    main("auth_service", run, packaged("auth", "auth_service"), {"keys": keys})
