"""The chart's scenarios, rendered once, and how tests look into them."""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final

from helm.chart import SCENARIOS as FILES
from helm.chart import Object, read_values, render

# By name, the values of each scenario in ci/, and the chart's defaults.
SCENARIOS: Final[Mapping[str, dict[str, Any]]] = {"defaults": {}} | {file.name.removesuffix("-values.yaml"): read_values(file) for file in FILES}
WORKLOADS: Final = ("Deployment", "StatefulSet", "Job", "CronJob", "Pod")
# What an operator's Secret would hold.
GIVEN: Final = {
    "service-token": "0123456789abcdef" * 2,
    "page-token-key": "fedcba9876543210" * 2,
    "key-encryption-key": base64.b64encode(bytes(range(32))).decode(),
    **{f"{name}-password": f"{name}.password~0123456789" for name in ("postgres", "migrator", "auth-service", "task-service", "redis")},
}


@cache
def _objects(scenario: str) -> tuple[Object, ...]:
    return tuple(render(SCENARIOS[scenario]))


def objects(scenario: str) -> list[Object]:
    """All objects of a scenario. Not to be changed: copy them first."""
    return list(_objects(scenario))


def of_kind(found: Iterable[Object], *kinds: str) -> list[Object]:
    """Those of these kinds."""
    return [one for one in found if one["kind"] in kinds]


def get(found: Iterable[Object], kind: str, name: str) -> Object:
    """The one of this kind and name."""
    (one,) = [one for one in of_kind(found, kind) if one["metadata"]["name"] == name]
    return one


def title(one: Object) -> str:
    """How a message calls an object."""
    return f"{one['kind']} {one['metadata']['name']}"


def component(one: Object) -> str:
    """The component that a workload or Service is of: `auth-service`, `gateway`, …."""
    labels = one["spec"]["template"]["metadata"]["labels"] if "template" in one.get("spec", {}) else one["metadata"]["labels"]
    name: str = labels["app.kubernetes.io/name"]
    return name


def pods(found: Iterable[Object]) -> Iterator[tuple[Object, dict[str, Any]]]:
    """Each workload with the template of its pods: labels under `metadata`, the rest under `spec`."""
    for one in of_kind(found, *WORKLOADS):
        spec = one["spec"]["jobTemplate"]["spec"] if one["kind"] == "CronJob" else one["spec"]
        yield one, one if one["kind"] == "Pod" else spec["template"]


def environment(container: Mapping[str, Any], found: Iterable[Object]) -> dict[str, str]:
    """What the container's process is given, as Kubernetes puts it together: ConfigMaps first, then `env`, in which $(NAME) is an earlier one."""
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
    """A generated value, or what an operator would have given."""
    for one in of_kind(found, "Secret"):
        if one["metadata"]["name"] == reference["name"]:
            return base64.b64decode(one["data"][reference["key"]]).decode()
    return GIVEN[reference["key"]]


def environments(found: Iterable[Object], name: str, kind: str = "Deployment") -> Iterator[tuple[Object, dict[str, Any], dict[str, str]]]:
    """(workload, container, environment) of each workload of a component: of task-service there may be a canary."""
    found = list(found)
    for one, template in pods(found):
        if one["kind"] == kind and component(one) == name:
            (container,) = template["spec"]["containers"]
            yield one, container, environment(container, found)
