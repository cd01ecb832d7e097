"""Entry point of `python -m task_service run | migrate`."""

from servicekit.process.commands import main
from servicekit.process.settings import load
from servicekit.process.untraced import leave_out_opentelemetry
from servicekit.stores.migrate import packaged


async def run() -> None:
    """Reads the settings, imports the service, and serves until SIGTERM. Wrong settings end the process before the imports, which take a second."""
    from task_service.settings import Settings  # noqa: PLC0415 - `migrate` starts faster without these imports

    settings = load(Settings)
    leave_out_opentelemetry(settings.otel_exporter_otlp_endpoint)
    from task_service import app  # noqa: PLC0415 - see above

    await app.run(settings)


if __name__ == "__main__":
    main("task_service", run, packaged("task", "task_service"))
