"""The chart's scenarios, each rendered once, and functions to read the rendered objects."""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final

from helm.chart import SCENARIOS as FILES
from helm.chart import Object, read_values, render

# The values of the chart's defaults and of each scenario in ci/, by name.
SCENARIOS: Final[Mapping[str, dict[str, Any]]] = {"defaults": {}} | {file.name.removesuffix("-values.yaml"): read_values(file) for file in FILES}
WORKLOADS: Final = ("Deployment", "StatefulSet", "Job", "CronJob", "Pod")
# The values in a Secret that an operator would create.
GIVEN: Final = {
    "service-token": "0123456789abcdef" * 2,
    "page-token-key": "fedcba9876543210" * 2,
    "key-encryption-key": base64.b64encode(bytes(range(32))).decode(),
    **{
        f"{name}-password": f"{name}.password~0123456789" for name in ("postgres", "migrator", "auth-service", "task-service", "task-worker", "redis")
    },
}


@cache
def _objects(scenario: str) -> tuple[Object, ...]:
    return tuple(render(SCENARIOS[scenario]))


def objects(scenario: str) -> list[Object]:
    """Returns all objects of a scenario. They are shared: copy them before you change them."""
    return list(_objects(scenario))


def of_kind(found: Iterable[Object], *kinds: str) -> list[Object]:
    """Returns the objects of these kinds."""
    return [one for one in found if one["kind"] in kinds]


def get(found: Iterable[Object], kind: str, name: str) -> Object:
    """Returns the object of this kind and name. Fails if there is none."""
    (one,) = [one for one in of_kind(found, kind) if one["metadata"]["name"] == name]
    return one


def title(one: Object) -> str:
    """Returns the name of an object for messages."""
    return f"{one['kind']} {one['metadata']['name']}"


def component(one: Object) -> str:
    """Returns the component of a workload or Service: `auth-service`, `gateway`, …."""
    labels = one["spec"]["template"]["metadata"]["labels"] if "template" in one.get("spec", {}) else one["metadata"]["labels"]
    name: str = labels["app.kubernetes.io/name"]
    return name


def pods(found: Iterable[Object]) -> Iterator[tuple[Object, dict[str, Any]]]:
    """Yields each workload with its pod template: labels under `metadata`, the rest under `spec`."""
    for one in of_kind(found, *WORKLOADS):
        spec = one["spec"]["jobTemplate"]["spec"] if one["kind"] == "CronJob" else one["spec"]
        yield one, one if one["kind"] == "Pod" else spec["template"]


def environment(container: Mapping[str, Any], found: Iterable[Object]) -> dict[str, str]:
    """Returns the environment of the container's process, as Kubernetes builds it: ConfigMaps, then `env`, where $(NAME) is an earlier variable."""
    found = list(found)
    result: dict[str, str] = {}
    for source in container.get("envFrom", []):
        result |= get(found, "ConfigMap", source["configMapRef"]["name"])["data"]
    for variable in container.get("env", []):
        if "valueFrom" in variable:
            result[variable["name"]] = _secret(variable["valueFrom"]["secretKeyRef"], found)
        else:
            result[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda match: result[match[1]], variable["value"])
    return result


def _secret(reference: Mapping[str, str], found: list[Object]) -> str:
    """Returns a generated value, or the one of an operator's Secret."""
    for one in of_kind(found, "Secret"):
        if one["metadata"]["name"] == reference["name"]:
            return base64.b64decode(one["data"][reference["key"]]).decode()
    return GIVEN[reference["key"]]


def environments(found: Iterable[Object], name: str, kind: str = "Deployment") -> Iterator[tuple[Object, dict[str, Any], dict[str, str]]]:
    """Yields (workload, container, environment) for each workload of a component. task-service may have two, because of the canary."""
    found = list(found)
    for one, template in pods(found):
        if one["kind"] == kind and component(one) == name:
            (container,) = template["spec"]["containers"]
            yield one, container, environment(container, found)
