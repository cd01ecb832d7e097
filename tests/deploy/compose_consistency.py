"""Compares docker-compose.yml and Prometheus's configuration with the code. `differences` names each point at which they do not agree."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import ValidationError

from auth_service.settings import Settings as AuthSettings
from devstack.roles import MIGRATOR, SERVICES, WORKER
from gateway.settings import GatewaySettings, SettingsError
from servicekit.process.commands import MigrationSettings
from servicekit.process.runtime import CLOSE_TIMEOUT_SECONDS
from servicekit.process.settings import ProcessSettings
from task_service.settings import Settings as TaskSettings
from task_service.settings import WorkerSettings
from tests.deploy.consistency import GATEWAY_NOTICES_SECONDS

Compose = Mapping[str, Any]


def _names(settings: Any) -> set[str]:
    return {name.upper() for name in settings.model_fields}


def _default(settings: Any, field: str) -> Any:
    return settings.model_fields[field].default


PROGRAMS: Final[Mapping[str, type[ProcessSettings]]] = {"auth": AuthSettings, "task": TaskSettings, "task-worker": WorkerSettings}
# The database role of each program.
ROLES: Final = dict(zip(PROGRAMS, (*SERVICES, WORKER), strict=True))
# The roles of the service and of its worker for which each migration makes the rights.
MIGRATIONS: Final = {"migrate-auth": ("auth_service", None), "migrate-task": ("task_service", WORKER)}
# The service that each address setting must name, and its port. The ports of our own services come from the code.
ENDPOINTS: Final = {
    "AUTH_GRPC_ENDPOINTS": ("auth", _default(AuthSettings, "grpc_port")),
    "TASK_GRPC_ENDPOINTS": ("task", _default(TaskSettings, "grpc_port")),
    "JWKS_ENDPOINT": ("auth", _default(AuthSettings, "ops_port")),
    "JWKS_URL": ("auth", _default(AuthSettings, "ops_port")),
    "AUTH_GRPC_ENDPOINT": ("auth", _default(AuthSettings, "grpc_port")),
    "DATABASE_URL": ("postgres", 5432),
    "REDIS_URL": ("redis", 6379),
}
# Matches host:port in a URL, in a gRPC target, or alone. Does not match user:password in a URL.
_ADDRESS: Final = re.compile(r"(?:^|[/@,])([a-z][a-z-]*):(\d+)(?=$|[/,])")
# The time that Envoy needs to exit. Docker must not kill the gateway earlier than this after the drain.
ENVOY_ENDS_SECONDS: Final = 2.0


def differences(project: Compose, scrapes: Compose, dockerfile: str) -> list[str]:
    """Returns one line per difference. The project's variables are inserted already; `scrapes` is Prometheus's configuration."""
    services = project["services"]
    return [
        *_services(services),
        *_migrations(services),
        *_gateway(services),
        *_addresses(services),
        *_scraped(services, scrapes),
        *_health(dockerfile),
        *_worker(services["task-worker"]),
    ]


def environment(service: Compose) -> dict[str, str]:
    """Returns the variables that have a value. For the others the program's default applies."""
    return {name: str(value) for name, value in service["environment"].items() if value is not None}


def _services(services: Compose) -> Iterator[str]:
    for name, program in PROGRAMS.items():
        variables = environment(services[name])
        try:
            settings = program(**{variable.lower(): value for variable, value in variables.items()})
        except ValidationError as error:
            yield from (f"{name}: {'.'.join(map(str, wrong['loc'])).upper()}: {wrong['msg']}" for wrong in error.errors(include_input=False))
            continue
        if _seconds(services[name]) < settings.drain_delay_seconds + settings.shutdown_grace_seconds + CLOSE_TIMEOUT_SECONDS:
            yield f"{name}: is killed while it drains"
        if settings.drain_delay_seconds < GATEWAY_NOTICES_SECONDS:
            yield f"{name}: drains faster than the gateway notices"
        if (user := _user(variables)) != ROLES[name]:
            yield f"{name}: logs in as {user}"


def _migrations(services: Compose) -> Iterator[str]:
    for name, roles in MIGRATIONS.items():
        variables = environment(services[name])
        yield from (f"{name}: migrate has no {variable}" for variable in sorted(variables.keys() - _names(MigrationSettings)))
        if (variables.get("SERVICE_ROLE"), variables.get("WORKER_ROLE")) != roles:
            yield f"{name}: does not migrate for {roles}"
        if (_user(variables), services[name].get("command")) != (MIGRATOR, ["migrate"]):
            yield f"{name}: does not migrate as {MIGRATOR}"


def _gateway(services: Compose) -> Iterator[str]:
    service = services["gateway"]
    variables = environment(service)
    yield from (f"gateway: there is no {variable}" for variable in sorted(variables.keys() - _names(GatewaySettings)))
    try:
        settings = GatewaySettings.from_environment(variables)
    except SettingsError as error:
        yield f"gateway: {error}"
        return
    if not all(str(port).endswith(f":{settings.gateway_port}") for port in service["ports"]):
        yield f"gateway: the code listens on {settings.gateway_port}"
    if settings.shutdown_grace_seconds < settings.request_timeout_seconds:
        yield f"gateway: stops before a call of {settings.request_timeout_seconds} s may have ended"
    if _seconds(service) < settings.drain_delay_seconds + settings.shutdown_grace_seconds + ENVOY_ENDS_SECONDS:
        yield "gateway: is killed while it drains"


def _addresses(services: Compose) -> Iterator[str]:
    """Checks that every `host:port` in our settings names the port on which the code listens, and that both services share a network."""
    for name in (*PROGRAMS, *MIGRATIONS, "gateway"):
        for variable, value in environment(services[name]).items():
            wanted = ENDPOINTS.get(variable)
            if _ADDRESS.findall(value) != ([(wanted[0], str(wanted[1]))] if wanted else []):
                yield f"{name}: {variable} names {_ADDRESS.findall(value)}, and not {wanted}"
            elif wanted and not set(services[name]["networks"]) & set(services[wanted[0]]["networks"]):
                yield f"{name}: {variable} names {wanted[0]}, which is in no network with it"


def _scraped(services: Compose, scrapes: Compose) -> Iterator[str]:
    """Checks that Prometheus scrapes the ops port of each of our services, under the service's name in metrics and traces."""
    wanted = {
        _default(program, "otel_service_name"): (name, _default(program, "ops_port"))
        for name, program in {**PROGRAMS, "gateway": GatewaySettings}.items()
    }
    found = {job["job_name"]: (*lookup["names"], lookup["port"]) for job in scrapes["scrape_configs"] for lookup in job.get("dns_sd_configs", [])}
    yield from (f"prometheus: scrapes {job} at {found.get(job)}, and not at {at}" for job, at in wanted.items() if found.get(job) != at)
    yield from (f"prometheus: scrapes {job}, which is not there" for job in sorted(found.keys() - wanted.keys()))
    networks = set(services["prometheus"]["networks"])
    yield from (f"prometheus: is in no network with {name}" for name, _ in wanted.values() if not networks & set(services[name]["networks"]))


def _health(dockerfile: str) -> Iterator[str]:
    """Checks that each image's own health check, which compose uses, asks the port of its program."""
    checks = r'^HEALTHCHECK .*\bservicekit\.process\.healthcheck", "(\d+)"]\nENTRYPOINT \["python", "-m", "(\w+)"]$'
    asked = dict(re.findall(checks, dockerfile, re.MULTILINE))
    wanted = {str(_default(program, "grpc_port")): program.__module__.partition(".")[0] for program in (AuthSettings, TaskSettings)}
    if asked != wanted:
        yield f"the images ask {asked} for their health, and listen as {wanted}"


def _worker(service: Compose) -> Iterator[str]:
    """Checks that the worker's container runs `work`, and that the image's health check, which is that of the service, asks the worker's port."""
    if service.get("command") != ["work"]:
        yield "task-worker: does not run `work`"
    if environment(service).get("GRPC_PORT") != str(_default(WorkerSettings, "grpc_port")):
        yield "task-worker: the health check asks another port"


def _user(variables: Mapping[str, str]) -> str:
    return variables.get("DATABASE_URL", "").partition("://")[2].partition(":")[0]


def _seconds(service: Compose) -> float:
    return float(service["stop_grace_period"].removesuffix("s"))
