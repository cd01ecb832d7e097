"""Every scenario renders objects that an API server accepts, pods that comply with "restricted", and Deployments that stay up during a roll-out."""

import ipaddress
import re
from copy import deepcopy
from typing import Any

import pytest
import yaml

from helm.chart import ROOT, render, texts
from helm.lint import findings
from tests.deploy import restricted, validity
from tests.deploy.rendered import SCENARIOS, component, environments, get, objects, of_kind, pods, title

SERVICES = ("auth-service", "task-service", "gateway")
DEPLOYED = (*SERVICES, "task-worker")
VERSION = yaml.safe_load((ROOT / "Chart.yaml").read_text())["appVersion"]
OPERATIONS, MANIFESTS = ROOT.parents[1] / "docs" / "operations.md", ROOT.parents[1] / "manifests" / "README.md"
EVERY = pytest.mark.parametrize("scenario", SCENARIOS)
# The objects that an operator would have created for the scenarios.
GIVEN = {
    "Secret": {
        "task-manager-keys",
        "task-manager-database",
        "task-manager-redis",
        "database-ca",
        "redis-ca",
        "gateway-tls",
        "api-example-com",
        "registry",
        "bucket",
    },
    "ConfigMap": set[str](),
}


def ours(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the Deployments of the services, the gateway and the worker."""
    return [one for one in of_kind(found, "Deployment") if component(one) in DEPLOYED]


@EVERY
def test_helm_finds_nothing_wrong(scenario: str) -> None:
    assert findings(SCENARIOS[scenario]) == []


def test_an_api_server_would_take_every_object() -> None:
    # Many objects are the same in every scenario: check each once.
    every = {repr(one): one for scenario in SCENARIOS for one in objects(scenario)}
    assert {title(one): found for one in every.values() if (found := validity.problems(one))} == {}


def test_what_an_api_server_would_not_take_is_found() -> None:
    deployment = deepcopy(get(objects("defaults"), "Deployment", "task-manager-gateway"))
    deployment["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    monitor = deepcopy(get(objects("monitoring"), "PodMonitor", "task-manager"))
    monitor["spec"]["podMetricsEndpoints"][0]["intervall"] = "15s"
    unknown = {"apiVersion": "example.com/v1", "kind": "Sidecar", "metadata": {"name": "x"}}
    old = {"apiVersion": "monitoring.coreos.com/v1beta1", "kind": "PodMonitor", "metadata": {"name": "x"}, "spec": {}}
    assert [bool(validity.problems(one)) for one in (deployment, monitor, unknown, old)] == [True] * 4


@EVERY
def test_names_are_unique_and_short_enough(scenario: str) -> None:
    names = [(one["kind"], one["metadata"]["name"]) for one in objects(scenario)]
    assert len(names) == len(set(names))
    # A label's value has at most 63 characters. The names of Jobs and StatefulSets become labels; for a StatefulSet with an appended hash.
    assert [name for kind, name in names if len(name) > (52 if kind == "StatefulSet" else 63)] == []


@EVERY
def test_pods_are_restricted(scenario: str) -> None:
    found = {title(one): list(restricted.problems(template["spec"])) for one, template in pods(objects(scenario))}
    assert len(found) >= 5
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "change",
    [
        {"hostNetwork": True},
        {"securityContext": {"runAsNonRoot": True}},
        {"securityContext": {"runAsNonRoot": False, "seccompProfile": {"type": "RuntimeDefault"}}},
        {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]},
        {"containers": [{"name": "x", "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}}]},
        {"containers": [{"name": "x", "securityContext": {"capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}}]},
    ],
)
def test_what_is_not_restricted_is_found(change: dict[str, Any]) -> None:
    spec = get(objects("defaults"), "Deployment", "task-manager-gateway")["spec"]["template"]["spec"]
    assert list(restricted.problems(spec)) == []
    assert list(restricted.problems(spec | change)) != []


@EVERY
def test_what_pods_refer_to_is_there(scenario: str) -> None:
    found = objects(scenario)
    there = {
        kind: {one["metadata"]["name"] for one in of_kind(found, kind)} | GIVEN.get(kind, set()) for kind in ("Secret", "ConfigMap", "ServiceAccount")
    }
    missing = {(title(one), kind, name) for one, template in pods(found) for kind, name in _references(template["spec"]) if name not in there[kind]}
    assert missing == set()


def _references(spec: dict[str, Any]) -> set[tuple[str, str]]:
    found = {("ServiceAccount", spec["serviceAccountName"])}
    for volume in spec.get("volumes", []):
        found |= {("Secret", volume["secret"]["secretName"])} if "secret" in volume else set()
        found |= {("ConfigMap", volume["configMap"]["name"])} if "configMap" in volume else set()
    for container in spec["containers"]:
        found |= {("ConfigMap", source["configMapRef"]["name"]) for source in container.get("envFrom", [])}
        found |= {("Secret", entry["valueFrom"]["secretKeyRef"]["name"]) for entry in container.get("env", []) if "valueFrom" in entry}
        mounts, volumes = ({part["name"] for part in where} for where in (container.get("volumeMounts", []), spec.get("volumes", [])))
        assert mounts <= volumes | {"data"}  # from a volumeClaimTemplate
    return found


@EVERY
def test_nobody_has_a_token_or_a_variable_for_each_service(scenario: str) -> None:
    specs = [template["spec"] for _, template in pods(objects(scenario))]
    assert all(spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False for spec in specs)


@EVERY
def test_no_secret_stands_in_a_configmap_or_a_command(scenario: str) -> None:
    """A secret appears only as a reference to its Secret, or as $(NAME)."""
    found = objects(scenario)
    secrets = {value for one in of_kind(found, "Secret") for value in one["data"].values()}
    texts = [repr(one) for one in found if one["kind"] != "Secret"]
    assert not [value for value in secrets for text in texts if value in text]


@EVERY
def test_a_roll_out_takes_no_capacity_away(scenario: str) -> None:
    for one in ours(objects(scenario)):
        assert one["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0, title(one)


@EVERY
def test_a_roll_out_waits_for_its_migration(scenario: str) -> None:
    """Every Job ends, and a roll-out fails only after its migration has: otherwise Helm would roll back while the migration still runs."""
    found = objects(scenario)
    for one in of_kind(found, "Job"):
        if not component(one).startswith("backup-restore"):
            assert 0 < one["spec"]["activeDeadlineSeconds"] <= 600, title(one)
            assert one["spec"]["ttlSecondsAfterFinished"] > 0, title(one)
    for one in of_kind(found, "Deployment"):
        migrations = [job["spec"]["activeDeadlineSeconds"] for job in of_kind(found, "Job") if component(job) == f"{component(one)}-migrate"]
        # Kubernetes's default is 600.
        assert one["spec"].get("progressDeadlineSeconds", 600) >= max([480, *migrations]) + 120, title(one)


def test_a_long_migration_has_a_longer_roll_out() -> None:
    found = render({"task-service": {"migration": {"deadlineSeconds": 7200}}})
    (job,) = [one for one in of_kind(found, "Job") if component(one) == "task-service-migrate"]
    assert job["spec"]["activeDeadlineSeconds"] == 7200
    for name in ("task-service", "task-worker"):
        assert get(found, "Deployment", f"task-manager-{name}")["spec"]["progressDeadlineSeconds"] == 7320


def test_a_canary_of_the_stable_image_has_no_migration_of_its_own() -> None:
    found = render({"task-service": {"canary": {"enabled": True, "image": {"tag": VERSION}}}})
    assert len([one for one in of_kind(found, "Job") if component(one) == "task-service-migrate"]) == 1


def test_no_wait_before_the_end_is_no_hook() -> None:
    """Kubernetes before 1.33 rejects a sleep of 0."""
    spec = get(render({"task-service": {"drain": {"preStopSeconds": 0}}}), "Deployment", "task-manager-task-service")["spec"]["template"]["spec"]
    assert "lifecycle" not in spec["containers"][0]
    with_hook = get(objects("defaults"), "Deployment", "task-manager-task-service")["spec"]["template"]["spec"]
    waits = with_hook["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert with_hook["terminationGracePeriodSeconds"] - spec["terminationGracePeriodSeconds"] == waits


@EVERY
def test_either_the_autoscaler_or_the_deployment_says_how_many(scenario: str) -> None:
    found = objects(scenario)
    scaled = {one["spec"]["scaleTargetRef"]["name"] for one in of_kind(found, "HorizontalPodAutoscaler")}
    for one in of_kind(found, "Deployment"):
        assert ("replicas" in one["spec"]) != (one["metadata"]["name"] in scaled), title(one)


@EVERY
def test_each_of_ours_has_its_guards(scenario: str) -> None:
    found = objects(scenario)
    for kind in ("PodDisruptionBudget", "ServiceAccount", "NetworkPolicy"):
        assert {f"task-manager-{name}" for name in DEPLOYED} <= {one["metadata"]["name"] for one in of_kind(found, kind)}
    assert {f"task-manager-{name}" for name in SERVICES} <= {one["metadata"]["name"] for one in of_kind(found, "Service")}
    for one in of_kind(found, "PodDisruptionBudget"):
        # With 0, no node with such a pod could be drained.
        assert one["spec"]["maxUnavailable"] == 1


@EVERY
def test_nothing_can_call_the_worker(scenario: str) -> None:
    found = objects(scenario)
    (policy,) = [one["spec"] for one in of_kind(found, "NetworkPolicy") if component(one) == "task-worker"]
    assert (policy["policyTypes"], "ingress" in policy) == (["Ingress", "Egress"], False)
    assert [title(one) for one in of_kind(found, "Service", "HorizontalPodAutoscaler", "Ingress") if component(one) == "task-worker"] == []


@EVERY
def test_the_worker_has_only_the_secrets_that_it_needs(scenario: str) -> None:
    ((_, container, _),) = environments(objects(scenario), "task-worker")
    keys = {variable["valueFrom"]["secretKeyRef"]["key"] for variable in container["env"] if "valueFrom" in variable}
    assert keys - {"redis-password"} == {"task-worker-password", "key-encryption-key"}


@EVERY
def test_the_worker_reaches_the_internet_and_neither_the_cluster_nor_the_node(scenario: str) -> None:
    found = objects(scenario)
    open_to = {
        component(one): [peer["ipBlock"] for rule in one["spec"].get("egress", []) for peer in rule.get("to", []) if "ipBlock" in peer]
        for one in of_kind(found, "NetworkPolicy")
    }
    assert {name for name, blocks in open_to.items() if any(block["cidr"] in {"0.0.0.0/0", "2000::/3", "::/0"} for block in blocks)} == {
        "task-worker"
    }
    ipv4, ipv6 = (each for each in open_to["task-worker"] if each["cidr"] in {"0.0.0.0/0", "2000::/3"})
    closed = [ipaddress.ip_network(network) for network in ipv4["except"]]
    for address in ("10.96.0.1", "172.18.0.2", "192.168.49.2", "169.254.169.254", "100.64.0.1", "127.0.0.1", "224.0.0.1", "255.255.255.255"):
        assert any(ipaddress.ip_address(address) in network for network in closed), address
    assert not any(ipaddress.ip_address("1.1.1.1") in network for network in closed)
    assert ipv6 == {"cidr": "2000::/3"}


@EVERY
def test_deployments_are_spread_by_their_own_labels(scenario: str) -> None:
    for one in ours(objects(scenario)):
        constraints = one["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert {constraint["topologyKey"] for constraint in constraints} == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
        assert all(constraint["labelSelector"] == one["spec"]["selector"] for constraint in constraints)


def test_services_of_grpc_are_headless_and_say_so() -> None:
    for name in ("auth-service", "task-service"):
        service = get(objects("defaults"), "Service", f"task-manager-{name}")
        (grpc,) = [port for port in service["spec"]["ports"] if port["name"] == "grpc"]
        assert (service["spec"]["clusterIP"], grpc["appProtocol"]) == ("None", "kubernetes.io/h2c")


def test_what_is_installed_from_a_checkout_are_images_that_were_made_there() -> None:
    made = set(re.findall(r"--tag (localhost/task-manager/[a-z-]+):", (ROOT.parents[1] / "Makefile").read_text()))
    containers = [container for _, template in pods(objects("minimal")) for container in template["spec"]["containers"]]
    ours = {one["image"]: one["imagePullPolicy"] for one in containers if "task-manager/" in one["image"]}
    assert ours == {f"{image}:{VERSION}": "IfNotPresent" for image in made}
    for text in (OPERATIONS, MANIFESTS):
        assert f"make images IMAGE_TAG={VERSION}\n" in text.read_text()
        assert f'kind load docker-image "localhost/task-manager/$name:{VERSION}"' in text.read_text()


def test_production_is_what_can_be_installed() -> None:
    """The scenario uses only the images of a release and metrics that Kubernetes has by default, and it includes the pod of `helm test`."""
    found = objects("production")
    images = {container["image"] for _, template in pods(found) for container in template["spec"]["containers"]}
    assert images == {f"localhost/task-manager/{name}:{VERSION}" for name in SERVICES}
    assert {metric["type"] for one in of_kind(found, "HorizontalPodAutoscaler") for metric in one["spec"]["metrics"]} == {"Resource"}
    assert [title(one) for one in of_kind(found, "Pod")] == ["Pod task-manager-smoke-test"]


def test_redis_is_a_cache() -> None:
    """It has no identity and no volume, two servers never run at once, and no argument contains its password."""
    found = objects("defaults")
    deployment = get(found, "Deployment", "task-manager-redis")["spec"]
    assert deployment["strategy"] == {"type": "Recreate"}
    assert [volume["name"] for volume in deployment["template"]["spec"]["volumes"]] == ["tmp"]
    assert [title(one) for one in of_kind(found, "StatefulSet")] == ["StatefulSet task-manager-postgresql"]


@EVERY
def test_no_password_is_an_argument(scenario: str) -> None:
    """Kubernetes replaces $(NAME) in arguments, and the process list of the node shows the result."""
    for one, template in pods(objects(scenario)):
        for container in template["spec"].get("initContainers", []) + template["spec"]["containers"]:
            assert not re.findall(r"\$\(\w+\)", " ".join(container.get("command", []) + container.get("args", []))), title(one)


def test_a_large_volume_does_not_delay_the_start() -> None:
    for one, template in pods(objects("backup")):
        assert template["spec"]["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch", title(one)


def test_redis_with_a_ca_of_its_own() -> None:
    found = render({"redis": {"enabled": False}, "global": {"redis": {"host": "redis.example.com", "tls": True, "caSecret": "redis-ca"}}})
    for name in ("auth-service", "task-service"):
        ((_, container, variables),) = environments(found, name)
        assert variables["REDIS_URL"] == "rediss://redis.example.com:6379/0?ssl_ca_certs=/etc/redis-ca/ca.crt"
        assert {"name": "redis-ca", "mountPath": "/etc/redis-ca", "readOnly": True} in container["volumeMounts"]


def test_postgres_has_more_shared_memory_than_a_container() -> None:
    found = objects("defaults")
    spec = get(found, "StatefulSet", "task-manager-postgresql")["spec"]["template"]["spec"]
    (name,) = [mount["name"] for mount in spec["containers"][0]["volumeMounts"] if mount["mountPath"] == "/dev/shm"]
    assert [volume["emptyDir"] for volume in spec["volumes"] if volume["name"] == name] == [{"medium": "Memory", "sizeLimit": "256Mi"}]


@pytest.mark.parametrize(
    ("good", "bad", "line"),
    [
        ({"backup": {"enabled": True}}, {}, "no backup"),
        ({}, {"gateway": {"service": {"type": "LoadBalancer"}}}, "LoadBalancer without TLS"),
        (
            {"gateway": {"service": {"type": "NodePort"}, "tls": {"existingSecret": "t"}}},
            {"gateway": {"service": {"type": "NodePort"}}},
            "without TLS",
        ),
        (
            {"gateway": {"ingress": {"enabled": True, "className": "alb", "hosts": ["a.example.com"], "tlsSecret": "t"}}},
            {"gateway": {"ingress": {"enabled": True, "className": "alb", "hosts": ["a.example.com"]}}},
            "no certificate of its own",
        ),
        (SCENARIOS["external"], SCENARIOS["external"] | {"gateway": SCENARIOS["external"]["gateway"] | {"networkPolicy": {}}}, "networkPolicy.from"),
    ],
)
def test_the_notes_say_what_is_missing(good: dict[str, Any], bad: dict[str, Any], line: str) -> None:
    assert [line in texts(values)["task-manager/templates/NOTES.txt"] for values in (good, bad)] == [False, True]


def test_a_canary_is_apart_from_the_stable_ones() -> None:
    found = objects("canary")
    canary, stable = (get(found, "Deployment", f"task-manager-task-service{suffix}") for suffix in ("-canary", ""))
    assert canary["spec"]["template"]["spec"]["containers"][0]["image"] == "localhost/task-manager/task-service:0.2.0-rc.1"
    assert not canary["spec"]["selector"]["matchLabels"].items() <= stable["spec"]["template"]["metadata"]["labels"].items()
    ((_, _, variables),) = environments(found, "gateway")
    assert variables["TASK_CANARY_ENDPOINTS"] == "task-manager-task-service-canary:50052"
    assert variables["TASK_CANARY_WEIGHT"] == "5"
    assert get(found, "Service", "task-manager-task-service-canary")["spec"]["selector"]["track"] == "canary"
    # The canary has its own migration, because it needs its own schema version to be ready.
    images = {container["image"] for _, container, _ in environments(found, "task-service-migrate", "Job")}
    assert images == {f"localhost/task-manager/task-service@sha256:{64 * 'b'}", "localhost/task-manager/task-service:0.2.0-rc.1"}


def test_other_settings_mean_other_pods_and_other_migrations_other_jobs() -> None:
    before = _told({})
    after = _told({"auth-service": {"settings": {"LOG_LEVEL": "DEBUG"}, "image": {"tag": "0.1.1"}}})
    assert {name for name, _ in before - after} == {"task-manager-auth-service", "auth-service-migrate"}
    # A canary changes none of these. (The gateway learns of it from `env`, which is not compared here.)
    with_canary = _told({"task-service": {"canary": {"enabled": True, "image": {"tag": "2"}}}})
    assert before <= with_canary
    assert {name for name, _ in with_canary - before} == {"task-manager-task-service-canary", "task-service-migrate"}


def _told(values: dict[str, Any]) -> set[tuple[str, str]]:
    """Returns (name, checksum of the settings) of each Deployment, and (component, name) of each Job."""
    found = render(values)
    deployments = {(one["metadata"]["name"], one["spec"]["template"]["metadata"]["annotations"]["checksum/config"]) for one in ours(found)}
    return deployments | {(component(one), one["metadata"]["name"]) for one in of_kind(found, "Job")}
