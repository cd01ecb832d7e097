"""Checks of the Pod Security Standard "restricted" (https://kubernetes.io/docs/concepts/security/pod-security-standards/) and of a read-only root."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

VOLUMES: Final = frozenset({"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"})
_HOST: Final = ("hostNetwork", "hostPID", "hostIPC")


def problems(pod: Mapping[str, Any]) -> Iterator[str]:
    """Yields the violations in a pod's spec."""
    security = pod.get("securityContext", {})
    yield from (f"{name} is set" for name in _HOST if pod.get(name))
    yield from (
        f"volume {volume['name']} is of a kind that is not allowed" for volume in pod.get("volumes", []) if not (volume.keys() - {"name"}) <= VOLUMES
    )
    if not security.get("runAsNonRoot"):
        yield "runAsNonRoot is not true"
    if security.get("runAsUser", 1) == 0:
        yield "runAsUser is root"
    if security.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        yield "there is no seccompProfile"
    if security.get("sysctls") or security.get("supplementalGroups") == [0]:
        yield "sysctls or root's group"
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        yield from (f"{container['name']}: {line}" for line in _container(container))


def _container(container: Mapping[str, Any]) -> Iterator[str]:
    security = container.get("securityContext", {})
    if security.get("privileged") or security.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges"
    capabilities = security.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "keeps capabilities"
    if security.get("runAsNonRoot") is False or security.get("runAsUser") == 0:
        yield "runs as root"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "takes a port of the host"
    # Our own rule, not part of the standard.
    if security.get("readOnlyRootFilesystem") is not True:
        yield "may write into its image"
