"""Fakes of a kubelet, a volume provisioner and a load balancer, as far as a release waits for them. No container runs.

A pod becomes ready when every Secret, ConfigMap and claim that it names exists, with the keys that it names. A pod that has to end succeeds then.
If its image has the tag BROKEN, a pod that has to end fails, and any other pod never becomes ready.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx

BROKEN: Final = "0.0.0-broken"
_ROUND_SECONDS: Final = 0.3
_MERGE: Final = {"content-type": "application/merge-patch+json"}
_REFERENCES: Final = {
    "secretKeyRef": "secrets",
    "secretRef": "secrets",
    "secret": "secrets",
    "configMapKeyRef": "configmaps",
    "configMapRef": "configmaps",
    "configMap": "configmaps",
    "persistentVolumeClaim": "persistentvolumeclaims",
}
_log: Final = logging.getLogger(__name__)


@contextmanager
def answered(api: httpx.Client) -> Iterator[None]:
    """Inside the block, pods become ready, claims are bound, and load balancers get an address."""
    ended = threading.Event()

    def answer() -> None:
        while not ended.wait(_ROUND_SECONDS):
            try:
                _round(api)
            except httpx.HTTPError:
                _log.exception("a round of answers for pods")

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _round(api: httpx.Client) -> None:
    for claim in _items(api, "/api/v1/persistentvolumeclaims"):
        if claim["status"].get("phase") != "Bound":
            spec = claim["spec"]
            _set(
                api,
                "persistentvolumeclaims",
                claim,
                {"phase": "Bound", "accessModes": spec["accessModes"], "capacity": spec["resources"]["requests"]},
            )
    for service in _items(api, "/api/v1/services"):
        if service["spec"]["type"] == "LoadBalancer" and not service["status"]["loadBalancer"]:
            _set(api, "services", service, {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}})
    for pod in _items(api, "/api/v1/pods?fieldSelector=status.phase=Pending"):
        if missing := list(_missing(api, pod)):
            _log.warning("%s waits for %s", pod["metadata"]["name"], ", ".join(missing))
        else:
            broken = any(container["image"].endswith(f":{BROKEN}") for container in pod["spec"]["containers"])
            _set(api, "pods", pod, _status(pod["spec"], broken=broken))


def _items(api: httpx.Client, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get(path).raise_for_status().json()["items"]
    return found


def _set(api: httpx.Client, kind: str, one: dict[str, Any], status: dict[str, Any]) -> None:
    path = f"/api/v1/namespaces/{one['metadata']['namespace']}/{kind}/{one['metadata']['name']}/status"
    response = api.patch(path, json={"status": status}, headers=_MERGE)
    if response.status_code != httpx.codes.NOT_FOUND:  # the object was deleted meanwhile
        response.raise_for_status()


def _status(spec: dict[str, Any], *, broken: bool) -> dict[str, Any]:
    """Returns the status of a pod. A healthy one is ready since one hour ago, so that nothing waits for minReadySeconds."""
    ends = spec["restartPolicy"] != "Always"
    ready = not ends and not broken
    since = f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    reason = {"exitCode": 1, "reason": "Error"} if broken else {"exitCode": 0, "reason": "Completed"}
    ended = {"terminated": reason | {"startedAt": since, "finishedAt": since}}
    state = {"ready": ready, "started": not ends, "restartCount": 0, "imageID": "", "state": ended if ends else {"running": {"startedAt": since}}}
    return {
        "phase": ("Failed" if broken else "Succeeded") if ends else "Running",
        "startTime": since,
        "conditions": [
            {"type": kind, "status": "True" if ready or not kind.endswith("Ready") else "False", "lastTransitionTime": since}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ],
        "containerStatuses": [{"name": one["name"], "image": one["image"]} | state for one in spec["containers"]],
    }


def _missing(api: httpx.Client, pod: dict[str, Any]) -> Iterator[str]:
    for kind, name, keys in _references(pod["spec"]):
        response = api.get(f"/api/v1/namespaces/{pod['metadata']['namespace']}/{kind}/{name}")
        if response.status_code == httpx.codes.NOT_FOUND:
            yield f"{kind}/{name}"
        else:
            yield from (f"{kind}/{name}: {key}" for key in keys - response.raise_for_status().json().get("data", {}).keys())


def _references(part: Any) -> Iterator[tuple[str, str, set[str]]]:
    """Yields (resource, name, keys) of all objects that a part of a pod requires."""
    if isinstance(part, list):
        for each in part:
            yield from _references(each)
    elif isinstance(part, dict):
        for key, value in part.items():
            if key in _REFERENCES and not value.get("optional"):
                (name,) = (value[naming] for naming in ("name", "secretName", "claimName") if naming in value)
                yield _REFERENCES[key], name, {item["key"] for item in (value, *value.get("items", [])) if "key" in item}
            yield from _references(value)
