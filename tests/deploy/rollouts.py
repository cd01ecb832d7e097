"""Whether a roll-out, and whatever else ends a pod, leaves callers the time to learn of it, by the times in Envoy's own configuration."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

import yaml

from helm.chart import Object
from tests.deploy.rendered import component, of_kind, title

# How old an answer of the cluster's DNS may be: the TTL of CoreDNS, unless its configuration says another.
CLUSTER_DNS_TTL_SECONDS: Final = 5.0
# What is in front of the gateway: kube-proxy puts changes of endpoints together for a second (minSyncPeriod) and writes them in less, and ingress
# controllers are alike.
PROXIES_LEARN_SECONDS: Final = 2.0


def differences(found: list[Object], envoy: str) -> Iterator[str]:
    """The Deployments that end a pod before those who call it can know what comes in its place."""
    for one in of_kind(found, "Deployment"):
        learn = PROXIES_LEARN_SECONDS if component(one) == "gateway" else gateway_learns_seconds(envoy)
        if one["spec"].get("minReadySeconds", 0) < learn:
            yield f"{title(one)}: a roll-out goes on before callers know of a new pod, which takes {learn:g} s"
        for container in one["spec"]["template"]["spec"]["containers"]:
            if pre_stop_seconds(container) < learn:
                yield f"{title(one)}: is told to end before callers know of it, which takes {learn:g} s"


def pre_stop_seconds(container: Mapping[str, Any]) -> int:
    """How long the kubelet sleeps before it sends SIGTERM. A hook of any other kind counts as none."""
    seconds: int = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    return seconds


@cache
def gateway_learns_seconds(envoy: str) -> float:
    """Within what time Envoy sends calls to a pod of a service that has become ready: an answer from before, its own look-up, one health check."""
    clusters = [cluster for cluster in yaml.safe_load(envoy)["static_resources"]["clusters"] if "health_checks" in cluster]
    return CLUSTER_DNS_TTL_SECONDS + max(
        _seconds(cluster["cluster_type"]["typed_config"]["dns_refresh_rate"]) + _seconds(check["timeout"])
        for cluster in clusters
        for check in cluster["health_checks"]
    )


def _seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))
