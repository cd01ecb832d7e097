"""The chart agrees with the code: settings, ports, probes, names, roles and paths. The check finds planted differences."""

import json
import tomllib
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.settings import GatewaySettings
from helm.chart import ROOT, Object
from tests.deploy.consistency import CANARY, DRAIN, PROGRAMS, differences, envoy_config, image_differences, names
from tests.deploy.rendered import SCENARIOS, get, objects, pods

SCHEMA = json.loads((ROOT / "values.schema.json").read_text())
# Settings that the chart sets itself, from other values or from Secrets. An operator cannot set them by name.
GIVEN_TO_SERVICES = {
    *("ENVIRONMENT", "TOKEN_ISSUER", "TOKEN_AUDIENCE", "OTEL_SERVICE_NAME", "OTEL_EXPORTER_OTLP_ENDPOINT", "GRPC_PORT", "OPS_PORT", *DRAIN),
    *("DATABASE_URL", "DATABASE_POOLER", "REDIS_URL", "SERVICE_TOKEN", "KEY_ENCRYPTION_KEY", "PAGE_TOKEN_KEY", "JWKS_URL", "AUTH_GRPC_ENDPOINT"),
}
GIVEN_TO_GATEWAY = {
    *("TOKEN_ISSUER", "TOKEN_AUDIENCE", "OTEL_EXPORTER_OTLP_ENDPOINT", "GATEWAY_PORT", "OPS_PORT", "ADMIN_PORT", "DESCRIPTORS", *CANARY, *DRAIN),
    *("TLS_PORT", "TLS_CERT_FILE", "TLS_KEY_FILE", "AUTH_GRPC_ENDPOINTS", "TASK_GRPC_ENDPOINTS", "JWKS_ENDPOINT", "EXCHANGE_ENDPOINTS"),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_code_and_chart_agree(scenario: str) -> None:
    assert differences(objects(scenario)) == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_setting_of_a_service_can_be_given_and_no_other(program: str) -> None:
    settable = set(SCHEMA["properties"][program]["properties"]["settings"]["properties"])
    # The schema accepts the OTEL_ variables of the SDK by a pattern. It lists the one that it excludes from the pattern.
    assert settable - {"OTEL_EXPORTER_OTLP_ENDPOINT"} == names(PROGRAMS[program]) - GIVEN_TO_SERVICES


def test_every_setting_of_the_gateway_can_be_given_and_no_other() -> None:
    settable = set(SCHEMA["properties"]["gateway"]["properties"]["settings"]["properties"])
    assert settable == names(GatewaySettings) - GIVEN_TO_GATEWAY


DOCKERFILES = [path for path in (ROOT.parents[1] / "Dockerfile", ROOT.parents[1] / "gateway" / "Dockerfile") if path.exists()]
DOCKERFILE = """
USER 65532:65532
LABEL org.opencontainers.image.title="gateway"
EXPOSE 8080 8443 9094
"""


@pytest.mark.parametrize("path", DOCKERFILES, ids=str)
def test_the_images_run_as_their_pods_do(path: Path) -> None:
    assert image_differences(path.read_text(), objects("monitoring")) == []


@pytest.mark.parametrize(("was", "becomes"), [("65532:65532", "1000:1000"), ("9094", "9095"), ('"gateway"', '"envoy"')])
def test_an_image_for_other_pods_is_found(was: str, becomes: str) -> None:
    assert image_differences(DOCKERFILE, objects("monitoring")) == []
    assert image_differences(DOCKERFILE.replace(was, becomes), objects("monitoring")) != []


def test_the_chart_has_the_version_of_the_code() -> None:
    version = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text())["project"]["version"]
    charts = {path: yaml.safe_load(path.read_text()) for path in (ROOT / "Chart.yaml", *ROOT.glob("charts/*/Chart.yaml"))}
    ours = [chart["appVersion"] for path, chart in charts.items() if path.parent.name not in {"postgresql", "redis", "monitoring"}]
    assert set(ours) == {version}
    assert {chart["version"] for chart in charts.values()} == {charts[ROOT / "Chart.yaml"]["version"]}


# ----------------------------------------------------------------------------------------------------------- planted differences

Change = Callable[[list[Object]], None]


def _container(found: list[Object], name: str) -> Any:
    return get(found, "Deployment", name)["spec"]["template"]["spec"]["containers"][0]


def _deployment(name: str, **change: Any) -> Change:
    return lambda found: get(found, "Deployment", name)["spec"].update(change)


def _pre_stop(deployment: str, hook: dict[str, Any]) -> Change:
    return lambda found: _container(found, deployment).update(lifecycle={"preStop": hook})


def _setting(config: str, name: str, value: str) -> Change:
    return lambda found: get(found, "ConfigMap", config)["data"].update({name: value})


def _env(deployment: str, variable: str, **change: str) -> Change:
    def apply(found: list[Object]) -> None:
        (entry,) = [entry for entry in _container(found, deployment)["env"] if entry["name"] == variable]
        entry.update(change)

    return apply


def _policy(kind: str, name: str, text: str, other: str) -> Change:
    def apply(found: list[Object]) -> None:
        one = get(found, kind, name)
        assert text in json.dumps(one["spec"])
        one["spec"] = json.loads(json.dumps(one["spec"]).replace(text, other))

    return apply


AUTH, TASK, GATEWAY = "task-manager-auth-service", "task-manager-task-service", "task-manager-gateway"
PLANTED: dict[str, Change] = {
    "a setting that the service does not have": _setting(AUTH, "BCRYPT_COTS", "12"),
    "a value that the service refuses": _setting(AUTH, "BCRYPT_COST", "4"),
    "a setting that the gateway does not have": _setting(GATEWAY, "RATE_LIMIT", "1"),
    "a value that the gateway refuses": _setting(GATEWAY, "JWKS_ENDPOINT", "nowhere"),
    "a required setting that is renamed": _env(TASK, "JWKS_URL", name="JWKS_URI"),
    "a secret that is renamed": _env(AUTH, "KEY_ENCRYPTION_KEY", name="ENCRYPTION_KEY"),
    "a Service that is not there": _env(TASK, "AUTH_GRPC_ENDPOINT", value="dns:///task-manager-auth:50051"),
    "a port that the Service does not have": _env(TASK, "AUTH_GRPC_ENDPOINT", value=f"dns:///{AUTH}:50052"),
    "the migrator as the service's role": _env(
        AUTH, "DATABASE_URL", value="postgresql://migrator:$(DATABASE_PASSWORD)@task-manager-postgresql:5432/taskmanager"
    ),
    "another port of the container": lambda found: _container(found, TASK)["ports"][0].update(containerPort=50051),
    "another port of a probe": lambda found: _container(found, TASK)["readinessProbe"]["grpc"].update(port=9092),
    "liveness that follows readiness": lambda found: _container(found, AUTH)["livenessProbe"]["grpc"].update(service=""),
    "a probe of the gateway's public port": lambda found: _container(found, GATEWAY)["readinessProbe"]["httpGet"].update(path="/ready", port="http"),
    "a gateway that is killed while it drains": lambda found: get(found, "Deployment", GATEWAY)["spec"]["template"]["spec"].update(
        terminationGracePeriodSeconds=20
    ),
    "a service that is killed while it drains": lambda found: get(found, "Deployment", AUTH)["spec"]["template"]["spec"].update(
        terminationGracePeriodSeconds=15
    ),
    "a gateway whose grace leaves no time before the drain": _pre_stop(GATEWAY, {"sleep": {"seconds": 15}}),
    "a service whose grace leaves no time before the drain": _pre_stop(AUTH, {"sleep": {"seconds": 21}}),
    "a gateway that is told to end before kube-proxy knows": _pre_stop(GATEWAY, {"sleep": {"seconds": 1}}),
    "a service that is told to end before the gateway knows": _pre_stop(TASK, {"sleep": {"seconds": 7}}),
    "a hook that may wait or not": _pre_stop(TASK, {"exec": {"command": ["sleep", "8"]}}),
    "a gateway that is rolled before kube-proxy knows": _deployment(GATEWAY, minReadySeconds=1),
    "a service that is rolled before the gateway knows": _deployment(TASK, minReadySeconds=7),
    "a service that is rolled as soon as it is ready": lambda found: get(found, "Deployment", AUTH)["spec"].pop("minReadySeconds"),
    "less memory than Envoy's heap": lambda found: _container(found, GATEWAY)["resources"]["limits"].update(memory="512Mi"),
    "a drain that the gateway does not notice": _setting(TASK, "DRAIN_DELAY_SECONDS", "1"),
    "a Service without pods": lambda found: get(found, "Service", AUTH)["spec"]["selector"].update(track="green"),
    "a Service without a port": lambda found: get(found, "Service", TASK)["spec"]["ports"][0].update(targetPort="h2c"),
    "no way out to the keys": _policy("NetworkPolicy", TASK, "9091", "9099"),
    "a way in for another": _policy("NetworkPolicy", TASK, '"app.kubernetes.io/name": "gateway"', '"app.kubernetes.io/name": "auth-service"'),
    "no default deny": lambda found: found.remove(get(found, "NetworkPolicy", "task-manager-default-deny")),
    "no migration": lambda found: found.remove(next(one for one in found if one["metadata"]["name"].startswith(f"{AUTH}-migrate-"))),
    "a gateway that may read the events": _policy(
        "AuthorizationPolicy", AUTH, "/taskmanager.auth.v1.EventService/*", "/taskmanager.auth.v1.EventServer/*"
    ),
    "a service that the gateway may not call": _policy("AuthorizationPolicy", TASK, "/taskmanager.task.v1.*", "/taskmanager.task.v2.*"),
    "no way out to istiod": lambda found: found.remove(get(found, "NetworkPolicy", "task-manager-to-istiod")),
    "another port of istiod": _policy("NetworkPolicy", "task-manager-to-istiod", "15012", "15010"),
    "a sidecar without a way out": lambda found: get(found, "Deployment", TASK)["spec"]["template"]["metadata"]["labels"].pop(
        "app.kubernetes.io/part-of"
    ),
    "a sidecar that keeps a test from ending": lambda found: get(found, "Pod", "task-manager-smoke-test")["metadata"]["annotations"].pop(
        "sidecar.istio.io/nativeSidecar"
    ),
    "a sidecar that keeps a migration from ending": lambda found: next(
        template["metadata"]["labels"] for one, template in pods(found) if one["metadata"]["name"].startswith(f"{AUTH}-migrate-")
    ).pop("sidecar.istio.io/inject"),
    "a mesh account that is not there": _policy("AuthorizationPolicy", TASK, GATEWAY, "task-manager-envoy"),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_difference_is_found(planted: str) -> None:
    found = deepcopy(objects("mesh"))
    PLANTED[planted](found)
    assert differences(found) != []


@pytest.mark.parametrize(
    ("was", "becomes"),
    [("dns_refresh_rate: 2s", "dns_refresh_rate: 10s"), ("timeout: 1s\n        interval: 1s", "timeout: 5s\n        interval: 1s")],
    ids=["looks up later", "checks for longer"],
)
def test_an_envoy_that_learns_later_than_roll_outs_wait_is_found(was: str, becomes: str) -> None:
    assert differences(objects("defaults"), envoy_config()) == []
    assert differences(objects("defaults"), envoy_config().replace(was, becomes)) != []


def test_what_belongs_to_none_of_the_tables_is_the_canary() -> None:
    with_canary = objects("canary")
    names_ = {entry["name"] for entry in _container(with_canary, GATEWAY)["env"]}
    assert names_ == CANARY
    assert "env" not in _container(objects("defaults"), GATEWAY)


def test_the_manifests_agree_too() -> None:
    found = [
        one
        for file in sorted(Path(ROOT.parents[1] / "manifests").glob("*.yaml"))
        for one in yaml.safe_load_all(file.read_text())
        if one and "kind" in one
    ]
    found = [one for one in found if one["kind"] not in {"Kustomization", "Namespace"}]
    assert len(found) > 30
    assert differences(found) == []
