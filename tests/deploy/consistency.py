"""Compares the rendered objects of the chart with the code. `differences` names each point at which they do not agree."""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from google.protobuf import descriptor_pb2
from pydantic import ValidationError
from pydantic_settings import BaseSettings

from auth_service.settings import Settings as AuthSettings
from devstack.roles import MIGRATOR, SERVICES, WORKER
from gateway.config import render
from gateway.routes import read_routes
from gateway.settings import GatewaySettings, SettingsError
from helm.chart import Object
from servicekit.process.commands import MigrationSettings
from servicekit.process.runtime import CLOSE_TIMEOUT_SECONDS
from servicekit.process.settings import ProcessSettings
from servicekit.rpc.health import LIVENESS
from task_service.settings import Settings as TaskSettings
from task_service.settings import WorkerSettings
from tests.deploy import rollouts
from tests.deploy.rendered import component, environments, of_kind, pods, title

DESCRIPTORS: Final = Path(__file__).resolve().parents[2] / "gen" / "descriptors.binpb"
SERVICE_PROGRAMS: Final[Mapping[str, type[ProcessSettings]]] = {"auth-service": AuthSettings, "task-service": TaskSettings}
# Nobody calls the workers.
WORKERS: Final[Mapping[str, type[ProcessSettings]]] = {"task-worker": WorkerSettings}
PROGRAMS: Final = {**SERVICE_PROGRAMS, **WORKERS}
# Variables that are only parts of a URL setting.
PARTS: Final = frozenset({"DATABASE_PASSWORD", "REDIS_PASSWORD"})
# Variables that an older version of the gateway does not have. It ignores them.
CANARY: Final = frozenset({"TASK_CANARY_ENDPOINTS", "TASK_CANARY_WEIGHT"})
DRAIN: Final = frozenset({"DRAIN_DELAY_SECONDS", "SHUTDOWN_GRACE_SECONDS"})
# The gateway's health checks in envoy.yaml.j2: two failed checks, 0.5 s apart, each with a timeout of 1 s.
GATEWAY_NOTICES_SECONDS: Final = 3
# Envoy's memory outside its heap, and heap that it has not returned yet (overload_manager in envoy.yaml.j2 limits only the heap).
GATEWAY_BESIDE_HEAP_BYTES: Final = 128 * 1024 * 1024


def differences(found: list[Object], envoy: str | None = None) -> list[str]:
    """Returns one line per difference. `envoy` is Envoy's configuration, by default the gateway's own."""
    checks = (_services, _migrations, _gateway, _addresses, _policies, _mesh)
    return [*(line for check in checks for line in check(found)), *rollouts.differences(found, envoy or envoy_config())]


@cache
def envoy_config() -> str:
    """Returns the gateway's configuration with default settings. No setting changes how fast the gateway finds pods."""
    return render(GatewaySettings(), DESCRIPTORS)


def names(settings: type[BaseSettings] | type[GatewaySettings]) -> set[str]:
    """Returns the names of the variables that a program reads."""
    return {name.upper() for name in settings.model_fields}


def image_differences(dockerfile: str, found: list[Object]) -> list[str]:
    """Returns the differences between a Dockerfile (user, ports, title) and the pods that run its image."""
    users = set(re.findall(r"^USER (\d+):\1$", dockerfile, re.MULTILINE))
    exposed = {int(port) for ports in re.findall(r"^EXPOSE (.+)$", dockerfile, re.MULTILINE) for port in ports.split()}
    names = set(re.findall(r'image\.title="([a-z-]+)"', dockerfile))
    pods = [(one, container) for name in names for one, container, _ in environments(found, name)]
    lines = [f"{title(one)}: runs as another user" for one, _ in pods if {str(_security(one)["runAsUser"])} != users]
    listening = {port["containerPort"] for _, container in pods for port in container["ports"]}
    return lines + [f"the image does not expose {port}" for port in sorted(listening - exposed)] + ([] if pods else ["no pod runs it"])


def _security(deployment: Object) -> dict[str, Any]:
    security: dict[str, Any] = deployment["spec"]["template"]["spec"]["securityContext"]
    return security


# ------------------------------------------------------------------------------------------------------------------- the services


def _services(found: list[Object]) -> Iterator[str]:
    for name, program in PROGRAMS.items():
        for deployment, container, variables in environments(found, name):
            where = title(deployment)
            unknown = {variable for variable in variables if not variable.startswith("OTEL_")} - names(program) - PARTS
            yield from (f"{where}: {program.__module__} has no {variable}" for variable in sorted(unknown))
            try:
                settings = program(**{variable.lower(): value for variable, value in variables.items()})
            except ValidationError as error:
                yield from (f"{where}: {'.'.join(map(str, wrong['loc'])).upper()}: {wrong['msg']}" for wrong in error.errors(include_input=False))
                continue
            yield from (f"{where}: {line}" for line in _service(settings, deployment, container, name.replace("-", "_")))


def _service(settings: ProcessSettings, deployment: Object, container: Mapping[str, Any], role: str) -> Iterator[str]:
    ports = {"grpc": settings.grpc_port, "ops": settings.ops_port}
    if {port["name"]: port["containerPort"] for port in container["ports"]} != ports:
        yield f"the code listens on {ports}"
    for probe, service in (("startupProbe", LIVENESS), ("readinessProbe", ""), ("livenessProbe", LIVENESS)):
        if container[probe].get("grpc") != {"port": settings.grpc_port, "service": service}:
            yield f"{probe} does not ask port {settings.grpc_port} for the health of {service!r}"
    worker = isinstance(settings, *WORKERS.values())
    if container["args"] != [command := "work" if worker else "run"]:
        yield f"does not run `{command}`"
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    before = rollouts.pre_stop_seconds(container)
    if grace < before + settings.drain_delay_seconds + settings.shutdown_grace_seconds + CLOSE_TIMEOUT_SECONDS:
        yield f"{grace} s of grace are less than the drain takes"
    if settings.drain_delay_seconds < GATEWAY_NOTICES_SECONDS and not worker:
        yield "drains faster than the gateway notices"
    if (user := urlsplit(settings.database_url.get_secret_value()).username) != role:
        yield f"logs in as {user}, and not as {role}"


def _migrations(found: list[Object]) -> Iterator[str]:
    for name, role in zip(SERVICE_PROGRAMS, SERVICES, strict=True):
        jobs = list(environments(found, f"{name}-migrate", "Job"))
        if not jobs:
            yield f"nothing migrates {name}"
        for job, container, variables in jobs:
            yield from (f"{title(job)}: migrate has no {variable}" for variable in sorted(variables.keys() - names(MigrationSettings) - PARTS))
            if variables.get("SERVICE_ROLE") != role:
                yield f"{title(job)}: SERVICE_ROLE is not {role}"
            if variables.get("WORKER_ROLE") != (worker := WORKER if name == "task-service" else None):
                yield f"{title(job)}: WORKER_ROLE is not {worker}"
            if urlsplit(variables.get("DATABASE_URL", "")).username != MIGRATOR:
                yield f"{title(job)}: logs in as another than {MIGRATOR}"
            if container["args"] != ["migrate"]:
                yield f"{title(job)}: does not run `migrate`"


# -------------------------------------------------------------------------------------------------------------------- the gateway


def _gateway(found: list[Object]) -> Iterator[str]:
    ((deployment, container, variables),) = environments(found, "gateway")
    where = title(deployment)
    yield from (f"{where}: gateway.settings has no {variable}" for variable in sorted(variables.keys() - names(GatewaySettings) - CANARY - DRAIN))
    try:
        settings = GatewaySettings.from_environment(variables)
    except SettingsError as error:
        yield f"{where}: {error}"
        return
    if container["args"] != ["run"]:
        yield f"{where}: does not run `run`"
    ports = {"http": settings.gateway_port, "ops": settings.ops_port} | ({"https": settings.tls_port} if settings.tls else {})
    if {port["name"]: port["containerPort"] for port in container["ports"]} != ports:
        yield f"{where}: the code listens on {ports}"
    for probe, path in (("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")):
        if container[probe].get("httpGet") != {"path": path, "port": "ops"}:
            yield f"{where}: {probe} does not ask {path} of the ops port"
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    if settings.tls_cert_file and str(settings.tls_cert_file.parent) not in mounted:
        yield f"{where}: nothing is mounted where {settings.tls_cert_file} is to be"
    memory = container["resources"]["limits"]["memory"]
    if int(memory.removesuffix("Mi")) * 1024 * 1024 < settings.max_heap_bytes + GATEWAY_BESIDE_HEAP_BYTES:
        yield f"{where}: {memory} leave no room above MAX_HEAP_BYTES"
    spec = deployment["spec"]["template"]["spec"]
    delay, grace = (float(variables[name]) for name in sorted(DRAIN))
    if spec["terminationGracePeriodSeconds"] <= rollouts.pre_stop_seconds(container) + delay + grace:
        yield f"{where}: is killed before it has drained"
    if grace < settings.request_timeout_seconds:
        yield f"{where}: stops before a call of {settings.request_timeout_seconds} s may have ended"


# ---------------------------------------------------------------------------------------------------------------------- addresses


def _addresses(found: list[Object]) -> Iterator[str]:
    """Checks that every `host:port` of ours in a setting is a Service with that port, and that a container listens behind it."""
    ours = {one["metadata"]["name"]: one for one in of_kind(found, "Service")}
    for name in (*PROGRAMS, "gateway"):
        for workload, _, variables in environments(found, name):
            for variable, value in variables.items():
                for host, port in re.findall(r"(task-manager-[a-z-]+):(\d+)", value):
                    if int(port) not in {p["port"] for p in ours.get(host, {"spec": {"ports": []}})["spec"]["ports"]}:
                        yield f"{title(workload)}: {variable} names {host}:{port}, and no Service has that"
    for service in ours.values():
        yield from (f"{title(service)}: {line}" for line in _behind(service, found))


def _behind(service: Object, found: list[Object]) -> Iterator[str]:
    selector = service["spec"]["selector"].items()
    templates = [one["spec"]["template"] for one in of_kind(found, "Deployment", "StatefulSet")]
    behind = [template for template in templates if selector <= template["metadata"]["labels"].items()]
    if len(behind) != 1:
        yield f"selects the pods of {len(behind)} workloads"
    for template in behind:
        listening = {port["name"] for container in template["spec"]["containers"] for port in container["ports"]}
        yield from (f"there is no port {port['targetPort']}" for port in service["spec"]["ports"] if port["targetPort"] not in listening)


# ------------------------------------------------------------------------------------------------------------------ network, mesh

# istiod's port for certificates and configuration (https://istio.io/latest/docs/ops/deployment/application-requirements/).
ISTIOD_PORT: Final = 15012
_GRPC_AND_OPS: Final = {
    name: {program.model_fields[port].default for port in ("grpc_port", "ops_port")} for name, program in SERVICE_PROGRAMS.items()
}
# Which component connects to which, and the ports. No other connection is allowed.
PATHS: Final[Mapping[tuple[str, str], set[int]]] = {
    ("gateway", "auth-service"): _GRPC_AND_OPS["auth-service"],  # calls, and the public keys
    ("gateway", "task-service"): {TaskSettings.model_fields["grpc_port"].default},
    ("task-service", "auth-service"): _GRPC_AND_OPS["auth-service"],  # events, and the public keys
    ("smoke-test", "gateway"): {GatewaySettings.model_fields["gateway_port"].default},
    ("backup", "postgresql"): {5432},
    ("backup-restore", "postgresql"): {5432},
    ("backup-restore", "redis"): {6379},
    **{(name, "redis"): {6379} for name in PROGRAMS},
    **{(name, "postgresql"): {5432} for name in (*PROGRAMS, *(f"{program}-migrate" for program in SERVICE_PROGRAMS))},
}


def _policies(found: list[Object]) -> Iterator[str]:
    policies = of_kind(found, "NetworkPolicy")
    if not any(one["spec"]["policyTypes"] == ["Ingress", "Egress"] and not {"ingress", "egress"} & one["spec"].keys() for one in policies):
        yield "nothing denies what no policy names"
    there = {component(one) for one in found if one["kind"] in {"Deployment", "StatefulSet", "Job", "Pod"}}
    wanted = {(source, target, port) for (source, target), ports in PATHS.items() if {source, target} <= there for port in ports}
    leaving = {path for path in _peers(policies, "egress", "to") if path[1] in there}
    arriving = {(source, target, port) for target, source, port in _peers(policies, "ingress", "from") if source in there}
    yield from (f"no policy lets {source} out to {target}:{port}" for source, target, port in sorted(wanted - leaving))
    yield from (f"a policy lets {source} out to {target}:{port}" for source, target, port in sorted(leaving - wanted))
    # A rule without `from` allows all sources and names no component.
    open_to_all = {(target, port) for target, port in _everybody(policies)}
    yield from (f"no policy lets {source} in to {t}:{port}" for source, t, port in sorted(wanted - arriving) if (t, port) not in open_to_all)
    yield from (f"a policy lets {source} in to {target}:{port}" for source, target, port in sorted(arriving - wanted))


def _peers(policies: Iterable[Object], direction: str, side: str) -> Iterator[tuple[str, str, int]]:
    """Yields (component of the policy, peer, port) for each peer that is a component."""
    for one in policies:
        for rule in one["spec"].get(direction, []):
            for peer in rule.get(side, []):
                if labels := peer.get("podSelector", {}).get("matchLabels"):
                    for port in rule["ports"]:
                        yield one["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"], labels["app.kubernetes.io/name"], port["port"]


def _everybody(policies: Iterable[Object]) -> Iterator[tuple[str, int]]:
    for one in policies:
        for rule in one["spec"].get("ingress", []):
            if "from" not in rule:
                yield from ((one["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"], port["port"]) for port in rule["ports"])


def _mesh(found: list[Object]) -> Iterator[str]:
    """Checks that the mesh lets the gateway call every service that it routes to, and none of the internal services."""
    policies = of_kind(found, "AuthorizationPolicy")
    if not policies:
        return
    for service, public in _grpc_services():
        allowed = {
            _account(principal)
            for one in policies
            for rule in one["spec"]["rules"]
            if _matches(rule, f"/{service}/Method")
            for source in rule.get("from", [])
            for principal in source["source"]["principals"]
        }
        wanted = {"task-manager-gateway"} if public else {"task-manager-task-service"}
        if allowed != wanted:
            yield f"the mesh lets {sorted(allowed)} call {service}, and not {sorted(wanted)}"
    accounts = {one["metadata"]["name"] for one in of_kind(found, "ServiceAccount")}
    named = {
        _account(p) for one in policies for rule in one["spec"]["rules"] for source in rule.get("from", []) for p in source["source"]["principals"]
    }
    yield from (f"the mesh names {name}, and there is no such ServiceAccount" for name in sorted(named - accounts))
    yield from _sidecars(found)


def _sidecars(found: list[Object]) -> Iterator[str]:
    """Checks that every sidecar can connect to istiod, and that the sidecar of a pod that ends by itself is native, so that it ends too."""
    ways = [one["spec"] for one in of_kind(found, "NetworkPolicy") if ISTIOD_PORT in _egress_ports(one)]
    for workload, template in pods(found):
        labels = template["metadata"]["labels"]
        if labels.get("sidecar.istio.io/inject") == "false":
            continue
        if not any(way["podSelector"]["matchLabels"].items() <= labels.items() for way in ways):
            yield f"{title(workload)}: no policy lets its sidecar out to istiod"
        native = template["metadata"].get("annotations", {}).get("sidecar.istio.io/nativeSidecar") == "true"
        if workload["kind"] in {"Job", "CronJob", "Pod"} and not native:
            yield f"{title(workload)}: its sidecar keeps it from ending"


def _egress_ports(policy: Object) -> set[int]:
    return {port["port"] for rule in policy["spec"].get("egress", []) for port in rule["ports"]}


def _grpc_services() -> Iterator[tuple[str, bool]]:
    """Yields each of our gRPC services, and whether the gateway has routes to it."""
    content = DESCRIPTORS.read_bytes()
    routed = {rpc.service for rpc in read_routes(content).rpcs}
    for file in descriptor_pb2.FileDescriptorSet.FromString(content).file:
        if file.package.startswith("taskmanager."):
            yield from ((f"{file.package}.{service.name}", f"{file.package}.{service.name}" in routed) for service in file.service)


def _account(principal: str) -> str:
    return principal.rsplit("/", 1)[-1]


def _matches(rule: Mapping[str, Any], path: str) -> bool:
    return any(
        any(_like(pattern, path) for pattern in to["operation"].get("paths", []))
        and not any(_like(p, path) for p in to["operation"].get("notPaths", []))
        for to in rule["to"]
    )


def _like(pattern: str, path: str) -> bool:
    """Matches as Istio does: exactly, or by prefix if the pattern ends with `*`."""
    return path.startswith(pattern[:-1]) if pattern.endswith("*") else path == pattern
