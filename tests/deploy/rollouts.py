"""Checks that callers learn of a new or stopping pod in time, with the times in Envoy's own configuration."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

import yaml

from helm.chart import Object
from tests.deploy.rendered import component, of_kind, title

# The maximum age of a cached DNS answer: the default TTL of CoreDNS.
CLUSTER_DNS_TTL_SECONDS: Final = 5.0
# For proxies in front of the gateway: kube-proxy collects changes of endpoints for 1 s (minSyncPeriod) and applies them in less than 1 s. Ingress
# controllers do the same.
PROXIES_LEARN_SECONDS: Final = 2.0
# A cache: without it, the services read PostgreSQL. And the worker, which nobody calls.
NOT_CALLED: Final = ("redis", "task-worker")


def differences(found: list[Object], envoy: str) -> Iterator[str]:
    """Yields the Deployments that stop a pod before its callers know the pod that replaces it."""
    for one in of_kind(found, "Deployment"):
        if component(one) in NOT_CALLED:
            continue
        learn = PROXIES_LEARN_SECONDS if component(one) == "gateway" else gateway_learns_seconds(envoy)
        if one["spec"].get("minReadySeconds", 0) < learn:
            yield f"{title(one)}: a roll-out goes on before callers know of a new pod, which takes {learn:g} s"
        for container in one["spec"]["template"]["spec"]["containers"]:
            if pre_stop_seconds(container) < learn:
                yield f"{title(one)}: is told to end before callers know of it, which takes {learn:g} s"


def pre_stop_seconds(container: Mapping[str, Any]) -> int:
    """Returns the seconds that the kubelet sleeps before SIGTERM. Any other kind of hook counts as 0."""
    seconds: int = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    return seconds


@cache
def gateway_learns_seconds(envoy: str) -> float:
    """Returns the maximum time until Envoy sends calls to a pod that is ready: a cached DNS answer, its own query, one health check."""
    clusters = [cluster for cluster in yaml.safe_load(envoy)["static_resources"]["clusters"] if "health_checks" in cluster]
    return CLUSTER_DNS_TTL_SECONDS + max(
        _seconds(cluster["cluster_type"]["typed_config"]["dns_refresh_rate"]) + _seconds(check["timeout"])
        for cluster in clusters
        for check in cluster["health_checks"]
    )


def _seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))
