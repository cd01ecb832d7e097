"""Entry point of `python -m task_service run | work | migrate | distribute`."""

from functools import partial

from servicekit.process.commands import main
from servicekit.process.settings import load
from servicekit.process.untraced import leave_out_opentelemetry
from servicekit.stores.distribute import Distribution
from servicekit.stores.migrate import packaged
from task_service.rights import WORKER_RIGHTS


async def start(command: str) -> None:
    """Reads the settings, imports the service, and runs until SIGTERM. Wrong settings end the process before the imports, which take a second."""
    from task_service.settings import Settings, WorkerSettings  # noqa: PLC0415 - `migrate` starts faster without these imports

    settings = load(WorkerSettings) if command == "work" else load(Settings)
    leave_out_opentelemetry(settings.otel_exporter_otlp_endpoint)
    from task_service import app  # noqa: PLC0415 - see above

    await app.start(settings)


if __name__ == "__main__":
    migrations = packaged("task", "task_service", WORKER_RIGHTS)
    # The queue of deleted accounts is read in one order for all users.
    distribution = Distribution(migrations, "user_id", reference=("feed",), local=("account_removals",))
    main("task_service", partial(start, "run"), migrations, distribution=distribution, work=partial(start, "work"))
