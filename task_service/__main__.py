"""Entry point of `python -m task_service run | migrate | distribute`."""

from servicekit.process.commands import main
from servicekit.process.settings import load
from servicekit.process.untraced import leave_out_opentelemetry
from servicekit.stores.distribute import Distribution
from servicekit.stores.migrate import packaged


async def run() -> None:
    """Reads the settings, imports the service, and serves until SIGTERM. Wrong settings end the process before the imports, which take a second."""
    from task_service.settings import Settings  # noqa: PLC0415 - `migrate` starts faster without these imports

    settings = load(Settings)
    leave_out_opentelemetry(settings.otel_exporter_otlp_endpoint)
    from task_service import app  # noqa: PLC0415 - see above

    await app.run(settings)


if __name__ == "__main__":
    migrations = packaged("task", "task_service")
    # The queue of deleted accounts is read in one order for all users.
    distribution = Distribution(migrations, "user_id", reference=("feed",), local=("account_removals",))
    main("task_service", run, migrations, distribution=distribution)
