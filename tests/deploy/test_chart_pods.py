"""What an operator adds to pods arrives in every workload, and only there where a component has values of its own."""

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from helm.chart import ROOT, Object, render
from tests.deploy import validity
from tests.deploy.rendered import component, get, of_kind, pods, title

# Every workload that the chart can render: of all components, the canary, both kinds of Jobs, and the pod of `helm test`.
EVERYTHING: Final[dict[str, Any]] = {
    "task-service": {"canary": {"enabled": True, "image": {"tag": "2"}}},
    "backup": {"enabled": True, "s3": {"enabled": True, "path": "bucket"}, "restore": {"file": "task-manager-20261125T021700Z.dump"}},
}
MOUNT: Final = {"name": "extra", "mountPath": "/extra"}
CONTAINER: Final = {"name": "added", "image": "example.com/added:1"}
POD: Final[dict[str, Any]] = {
    "labels": {"team": "a", "app.kubernetes.io/name": "not-this"},
    "annotations": {"example.com/scrape": "true", "checksum/config": "not-this"},
    "serviceAccountAnnotations": {"eks.amazonaws.com/role-arn": "arn"},
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    "extraEnvFrom": [{"configMapRef": {"name": "extra"}}],
    "extraVolumes": [{"name": "extra", "emptyDir": {}}],
    "extraVolumeMounts": [MOUNT],
    "initContainers": [CONTAINER | {"restartPolicy": "Always"}],
    "sidecars": [CONTAINER | {"name": "beside"}],
    "nodeSelector": {"pool": "a"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [{"topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}],
    "priorityClassName": "high",
    "runAsUser": 1234,
    "spec": {"dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}},
}
NAMES: Final = ("auth-service", "task-service", "task-worker", "gateway", "postgresql", "redis", "backup")


def with_pod(pod: dict[str, Any]) -> list[Object]:
    return render(EVERYTHING | {"global": {"pod": pod}})


def workloads(found: list[Object]) -> Iterator[tuple[str, str, Object, Object]]:
    """Yields (title, kind, template with the operator's values, template without) of each workload."""
    before = {_place(one): template for one, template in pods(render(EVERYTHING))}
    for one, template in pods(found):
        yield title(one), one["kind"], template, before[_place(one)]


def _place(one: Object) -> tuple[str, str, str]:
    # The name of a Job contains a hash of its spec.
    images = repr(
        sorted(container["image"] for _, template in pods([one]) for container in template["spec"]["containers"] if container["name"] != "beside")
    )
    return one["kind"], one["metadata"]["name"] if one["kind"] != "Job" else component(one), images


def test_the_schema_has_what_is_tested_here() -> None:
    schema = json.loads((ROOT / "values.schema.json").read_text())
    assert set(schema["$defs"]["pod"]["properties"]) == set(POD)


def test_every_value_arrives_in_every_workload() -> None:
    found = list(workloads(with_pod(POD)))
    assert len(found) == 14
    for name, kind, template, before in found:
        labels, annotations, spec = template["metadata"]["labels"], template["metadata"]["annotations"], template["spec"]
        assert labels == {"team": "a"} | before["metadata"]["labels"], name
        assert annotations == {"example.com/scrape": "true", "checksum/config": "not-this"} | before["metadata"].get("annotations", {}), name
        ours = [one for one in spec.get("initContainers", []) + spec["containers"] if one["name"] not in {"added", "beside"}]
        for container in ours:
            assert POD["extraEnv"][0] in container["env"], name
            assert POD["extraEnvFrom"][0] in container["envFrom"], name
            assert MOUNT in container["volumeMounts"], name
        assert POD["extraVolumes"][0] in spec["volumes"], name
        assert spec["initContainers"][0] == POD["initContainers"][0], name
        # Beside a container that does not end, a Job would not end either.
        assert (POD["sidecars"][0] in spec["containers"]) == (kind in {"Deployment", "StatefulSet"}), name
        for key in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
            assert spec[key] == POD[key], (name, key)
        assert spec["dnsConfig"] == POD["spec"]["dnsConfig"], name
        assert {spec["securityContext"][key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {1234}, name
        (constraint,) = spec["topologySpreadConstraints"]
        assert constraint["labelSelector"]["matchLabels"].items() <= labels.items(), name


def test_every_account_has_the_annotations() -> None:
    accounts = of_kind(with_pod(POD), "ServiceAccount")
    ours = [one for one in accounts if "helm.sh/hook" not in one["metadata"].get("annotations", {})]
    assert {one["metadata"]["name"] for one in ours} == {f"task-manager-{name}" for name in NAMES}
    assert all(one["metadata"]["annotations"] == POD["serviceAccountAnnotations"] for one in ours)


def test_an_api_server_takes_all_of_it() -> None:
    pod = POD | {"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}}
    assert {title(one): lines for one in with_pod(pod) if (lines := validity.problems(one))} == {}


@pytest.mark.parametrize("name", NAMES)
def test_the_values_of_a_component_add_to_the_common_ones_and_win(name: str) -> None:
    common = {"extraEnv": [{"name": "A", "value": "1"}], "nodeSelector": {"pool": "a", "disk": "b"}, "priorityClassName": "low"}
    own = {"extraEnv": [{"name": "B", "value": "2"}], "nodeSelector": {"pool": "own"}, "priorityClassName": "high"}
    values = EVERYTHING | {"global": {"pod": common}, name: EVERYTHING.get(name, {}) | {"pod": own}}
    for one, template in pods(render(values)):
        mine = component(one).removesuffix("-migrate").removesuffix("-restore").removesuffix("-claim") == name
        spec = template["spec"]
        assert [entry["name"] for entry in spec["containers"][0]["env"] if entry["name"] in "AB"] == (["A", "B"] if mine else ["A"]), title(one)
        assert spec["nodeSelector"] == {"disk": "b", "pool": "own" if mine else "a"}, title(one)
        assert spec["priorityClassName"] == ("high" if mine else "low"), title(one)


def test_a_variable_of_the_operator_replaces_the_charts() -> None:
    """Helm rejects two variables of one name."""
    given = {"name": "DATABASE_URL", "value": "postgresql://other"}
    found = render({"auth-service": {"pod": {"extraEnv": [given]}}})
    env = get(found, "Deployment", "task-manager-auth-service")["spec"]["template"]["spec"]["containers"][0]["env"]
    assert [entry for entry in env if entry["name"] == "DATABASE_URL"] == [given]


def test_user_0_leaves_the_user_to_the_cluster() -> None:
    for one, template in pods(with_pod({"runAsUser": 0})):
        assert template["spec"]["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}, title(one)


def test_empty_values_change_nothing() -> None:
    given = {part: {"existingSecret": part} for part in ("keys", "database", "redis")}
    empty = {"labels": {}, "extraEnv": [], "priorityClassName": "", "affinity": {}}
    assert render(EVERYTHING | {"global": given}) == render(EVERYTHING | {"global": given | {"pod": empty}})


def test_a_registry_replaces_the_one_of_every_image() -> None:
    plain, mirrored = (
        [
            c["image"]
            for _, template in pods(render(EVERYTHING | values))
            for c in template["spec"].get("initContainers", []) + template["spec"]["containers"]
        ]
        for values in ({}, {"global": {"imageRegistry": "mirror.example.com:5000/apps"}})
    )
    assert [image.partition("/")[2] for image in plain] == [image.removeprefix("mirror.example.com:5000/apps/") for image in mirrored]


def test_the_pull_policy_is_that_of_every_container() -> None:
    found = render(EVERYTHING | {"global": {"imagePullPolicy": "Never"}})
    containers = [one for _, template in pods(found) for one in template["spec"].get("initContainers", []) + template["spec"]["containers"]]
    assert {one["imagePullPolicy"] for one in containers} == {"Never"}


def test_objects_of_the_operator_are_templates() -> None:
    as_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-a"}}
    as_text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-b\n"
    found = render({"extraObjects": [as_map, as_text]})
    assert {"task-manager-a", "task-manager-b"} <= {one["metadata"]["name"] for one in of_kind(found, "ConfigMap")}


@pytest.mark.parametrize("name", ["auth-service", "task-service", "gateway"])
def test_a_cpu_limit_can_be_removed(name: str) -> None:
    found = render({name: {"resources": {"limits": {"cpu": None}}}})
    limits = get(found, "Deployment", f"task-manager-{name}")["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert set(limits) == {"memory"}


@pytest.mark.parametrize(("budget", "expected"), [({"minAvailable": "50%"}, {"minAvailable": "50%"}), ({"maxUnavailable": 3}, {"maxUnavailable": 3})])
def test_a_disruption_budget_is_what_the_operator_says(budget: dict[str, Any], expected: dict[str, Any]) -> None:
    spec = get(render({"gateway": {"podDisruptionBudget": budget}}), "PodDisruptionBudget", "task-manager-gateway")["spec"]
    assert {key: value for key, value in spec.items() if key.startswith(("min", "max"))} == expected


def test_each_role_can_have_a_secret_of_its_own() -> None:
    passwords = {name: {"secret": f"{name}-owner", "key": "password"} for name in ("migrator", "auth-service", "task-service", "task-worker")}
    database = {"host": "db.example.com", "passwords": passwords}
    found = render({"postgresql": {"enabled": False}, "global": {"database": database}, "backup": {"enabled": True}})
    read = {
        (component(one), entry["valueFrom"]["secretKeyRef"]["name"], entry["valueFrom"]["secretKeyRef"]["key"])
        for one, template in pods(found)
        for entry in template["spec"]["containers"][0].get("env", [])
        if entry["name"] in {"DATABASE_PASSWORD", "PGPASSWORD"}
    }
    assert read == {
        ("auth-service", "auth-service-owner", "password"),
        ("task-service", "task-service-owner", "password"),
        ("task-worker", "task-worker-owner", "password"),
        *((name, "migrator-owner", "password") for name in ("auth-service-migrate", "task-service-migrate", "backup", "backup-claim")),
    }


def test_two_ip_families() -> None:
    found = render({"global": {"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]}})
    for one in of_kind(found, "Service"):
        assert (one["spec"]["ipFamilyPolicy"], one["spec"]["ipFamilies"]) == ("PreferDualStack", ["IPv6", "IPv4"]), title(one)
    for name in ("auth-service", "task-service", "task-worker", "gateway"):
        assert get(found, "ConfigMap", f"task-manager-{name}")["data"]["BIND_HOST"] == "::"
    assert "BIND_HOST" not in get(render({"global": {"ipFamilyPolicy": "SingleStack"}}), "ConfigMap", "task-manager-gateway")["data"]


def test_dns_on_other_ports_and_pods() -> None:
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "openshift-dns"}}}
    found = render(EVERYTHING | {"global": {"networkPolicy": {"dns": [peer], "dnsPorts": [5353]}}})
    rules = [rule for one in of_kind(found, "NetworkPolicy") for rule in one["spec"].get("egress", []) if rule.get("to") == [peer]]
    assert len(rules) == 9
    assert all([(port["protocol"], port["port"]) for port in rule["ports"]] == [("UDP", 5353), ("TCP", 5353)] for rule in rules)


@pytest.mark.parametrize(("endpoint", "port"), [("http://c:4317", 4317), ("https://otlp.example.com:443", 443)])
def test_traces_may_leave_by_tls(endpoint: str, port: int) -> None:
    found = render({"global": {"tracing": {"endpoint": endpoint}}})
    for name in ("auth-service", "task-service", "task-worker", "gateway"):
        assert get(found, "ConfigMap", f"task-manager-{name}")["data"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == endpoint
        egress = get(found, "NetworkPolicy", f"task-manager-{name}")["spec"]["egress"]
        assert {"ports": [{"protocol": "TCP", "port": port}]} in egress


def test_an_ingress_without_a_certificate_of_its_own() -> None:
    ingress = {"enabled": True, "className": "alb", "hosts": ["api.example.com"]}
    (one,) = of_kind(render({"gateway": {"ingress": ingress}}), "Ingress")
    assert "tls" not in one["spec"]


def test_a_canary_by_digest() -> None:
    digest = f"sha256:{64 * 'c'}"
    found = render({"task-service": {"canary": {"enabled": True, "image": {"digest": digest}}}})
    container = get(found, "Deployment", "task-manager-task-service-canary")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"].endswith(f"task-service@{digest}")
