"""The paths to the gateway: they name existing ports, expose no cleartext port beside TLS, and cannot bypass a trusted proxy."""

import pytest

from helm.chart import render
from tests.deploy.rendered import SCENARIOS, component, get, objects, of_kind


def test_with_tls_nothing_leads_out_of_the_cluster_in_the_clear() -> None:
    services = {one["metadata"]["name"]: one["spec"] for one in of_kind(objects("monitoring"), "Service") if component(one) == "gateway"}
    ports = {name: (spec.get("type", "ClusterIP"), [port["name"] for port in spec["ports"]]) for name, spec in services.items()}
    assert ports == {"task-manager-gateway": ("LoadBalancer", ["https"]), "task-manager-gateway-plain": ("ClusterIP", ["http"])}
    # A ClusterIP Service has both ports.
    inside = [one for one in of_kind(render({"gateway": {"tls": {"existingSecret": "t"}}}), "Service") if component(one) == "gateway"]
    assert [[port["port"] for port in one["spec"]["ports"]] for one in inside] == [[80, 443]]


@pytest.mark.parametrize("way", ["ingress", "routes", "neither"])
@pytest.mark.parametrize("kind", ["ClusterIP", "LoadBalancer"])
@pytest.mark.parametrize("secret", ["", "tls"])
def test_what_leads_to_the_gateway_names_a_port_that_there_is(way: str, kind: str, secret: str) -> None:
    ways = {
        "ingress": {"enabled": True, "className": "nginx", "hosts": ["a.example.com"], "tlsSecret": "tls"},
        "routes": {"enabled": True, "parentRefs": [{"name": "p"}], "hostnames": ["a.example.com"], "grpcHostnames": ["b.example.com"]},
    }
    chosen = {way: ways[way]} if way in ways else {}
    found = render({"gateway": {**chosen, "service": {"type": kind}, "tls": {"existingSecret": secret}}})
    there = {(one["metadata"]["name"], port[key]) for one in of_kind(found, "Service") for port in one["spec"]["ports"] for key in ("name", "port")}
    rules = [rule for one in of_kind(found, "HTTPRoute", "GRPCRoute") for rule in one["spec"]["rules"]]
    named = {(backend["name"], backend["port"]) for rule in rules for backend in rule["backendRefs"]}
    for one in of_kind(found, "Ingress"):
        backends = [path["backend"]["service"] for rule in one["spec"]["rules"] for path in rule["http"]["paths"]]
        named |= {(backend["name"], backend["port"]["name"]) for backend in backends}
    (smoke,) = of_kind(found, "Pod")
    name, _, port = smoke["spec"]["containers"][0]["command"][-1].partition(":")
    named.add((name, int(port)))
    assert named <= there
    assert len(named) == 1 + (way == "ingress")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_strangers_reach_is_limited_and_has_one_way_in(scenario: str) -> None:
    """If the gateway trusts a proxy's x-forwarded-for, whoever bypasses the proxy can forge any client address."""
    found = objects(scenario)
    policy = get(found, "NetworkPolicy", "task-manager-gateway")["spec"]["ingress"]
    settings = get(found, "ConfigMap", "task-manager-gateway")["data"]
    behind = bool(of_kind(found, "Ingress", "HTTPRoute"))
    assert (settings["TRUSTED_HOPS"] != "0") == behind
    assert behind == all("from" in rule for rule in policy)
    if behind or get(found, "Service", "task-manager-gateway")["spec"]["type"] != "ClusterIP":
        assert float(settings["RATE_LIMIT_PER_SECOND"]) > 0


def test_traefik_brings_grpc() -> None:
    """Traefik reads the backend's protocol from the Service, not from the Ingress."""
    found = objects("external")
    assert get(found, "Ingress", "task-manager-gateway")["spec"]["ingressClassName"] == "traefik"
    scheme = get(found, "Service", "task-manager-gateway")["metadata"]["annotations"]["traefik.ingress.kubernetes.io/service.serversscheme"]
    assert scheme == "h2c"


def test_a_clouds_load_balancer_has_the_time_that_its_checks_take() -> None:
    found = objects("monitoring")
    annotations = get(found, "Service", "task-manager-gateway")["metadata"]["annotations"]
    takes = 3 * int(annotations["service.beta.kubernetes.io/aws-load-balancer-healthcheck-interval"])
    spec = get(found, "Deployment", "task-manager-gateway")["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert min(spec["minReadySeconds"], container["lifecycle"]["preStop"]["sleep"]["seconds"]) > takes
