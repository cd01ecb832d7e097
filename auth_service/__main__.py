"""Entry point of `python -m auth_service run | migrate | keys`."""

from auth_service.keys.commands import list_keys, replace_keys, rotate_keys
from servicekit.process.commands import Command, main
from servicekit.process.settings import load
from servicekit.process.untraced import leave_out_opentelemetry
from servicekit.stores.migrate import packaged


async def run() -> None:
    """Reads the settings, imports the service, and serves until SIGTERM. Wrong settings end the process before the imports, which take a second."""
    from auth_service.settings import Settings  # noqa: PLC0415 - `migrate` and `keys` start faster without these imports

    settings = load(Settings)
    leave_out_opentelemetry(settings.otel_exporter_otlp_endpoint)
    from auth_service import app  # noqa: PLC0415 - see above

    await app.run(settings)


if __name__ == "__main__":
    keys = Command("the keys that sign access tokens", {"list": list_keys, "rotate": rotate_keys, "replace": replace_keys})
    main("auth_service", run, packaged("auth", "auth_service"), {"keys": keys})
