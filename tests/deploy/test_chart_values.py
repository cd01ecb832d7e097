"""Helm rejects wrong values with a message that names the correction, and every value has a description."""

import json
from pathlib import Path
from typing import Any

import pytest
from helm_python import HelmError

from gateway.settings import GatewaySettings
from helm.chart import ROOT, SCENARIOS, render
from helm.values_table import COMPONENTS, README, NotDescribed, rows, table
from tests.deploy.consistency import GATEWAY_BESIDE_HEAP_BYTES
from tests.deploy.rendered import get

OUTSIDE = {"postgresql": {"enabled": False}, "global": {"database": {"host": "db.example.com", "existingSecret": "db"}}}
INGRESS = {"enabled": True, "className": "nginx", "hosts": ["a.example.com"], "tlsSecret": "tls"}
ROUTES = {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": ["a.example.com"]}

MIB = 1024 * 1024


def _memory(limit: str) -> dict[str, Any]:
    return {"limits": {"cpu": "2", "memory": limit}}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"gatway": {}}, "additional properties 'gatway' not allowed"),
    ({"global": {"redis": {"url": "redis://x"}}}, "additional properties 'url' not allowed"),
    ({"task-service": {"settings": {"CACHE_TTL": 1}}}, "additional properties 'CACHE_TTL' not allowed"),
    ({"task-service": {"settings": {"OTEL_EXPORTER_OTLP_ENDPOINT": "x"}}}, "given by global.tracing.endpoint"),
    ({"auth-service": {"settings": {"DATABASE_URL": "postgresql://x"}}}, "additional properties 'DATABASE_URL' not allowed"),
    ({"auth-service": {"drain": {"delaySeconds": 1}}}, "minimum: got 1, want 3"),
    ({"task-service": {"drain": {"preStopSeconds": -1}}}, "minimum: got -1, want 0"),
    ({"task-service": {"minReadySeconds": 1}}, "minimum: got 1, want 3"),
    ({"gateway": {"minReadySeconds": 0}}, "minimum: got 0, want 1"),
    ({"auth-service": {"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}, "claims": []}}}, "additional properties 'claims'"),
    ({"global": {"tracing": {"endpoint": "collector:4317"}}}, "does not match pattern"),
    ({"task-service": {"canary": {"weight": 101}}}, "maximum: got 101, want 100"),
    ({"postgresql": {"enabled": False}}, "there is no database: set global.database.host"),
    ({"global": OUTSIDE["global"]}, "set postgresql.enabled=false to use the database outside"),
    (OUTSIDE | {"global": {"database": {"host": "db.example.com"}}}, "set global.database.existingSecret to a Secret with migrator-password"),
    (OUTSIDE | {"global": {"database": {**OUTSIDE["global"]["database"], "sslMode": "verify-full"}}}, "set global.database.caSecret"),  # type: ignore[dict-item]
    ({"global": {"database": {"pooler": "pgbouncer"}}}, "is for a PgBouncer outside the release"),
    (
        OUTSIDE | {"global": {"database": {**OUTSIDE["global"]["database"], "pooler": "pgbouncer"}}, "backup": {"enabled": True}},  # type: ignore[dict-item]
        "set backup.database.host to PostgreSQL's own host",
    ),
    ({"redis": {"enabled": False}}, "there is no Redis: set global.redis.host"),
    ({"global": {"redis": {"host": "redis.example.com"}}}, "set redis.enabled=false to use the Redis outside"),
    ({"global": {"redis": {"tls": True}}}, "are for a Redis outside"),
    ({"global": {"redis": {"caSecret": "ca"}}}, "global.redis.caSecret is for TLS"),
    ({"global": {"redis": {"port": 6380}}}, "are for a Redis outside"),
    ({"global": {"database": {"port": 6432}}}, "are for a database outside"),
    ({"global": {"database": {"sslMode": "require"}}}, "are for a database outside"),
    ({"global": {"database": {"caSecret": "ca"}}}, "are for a database outside"),
    ({"backup": {"restore": {"file": "task-manager-20261125T021700Z.dump"}}}, "set backup.enabled=true"),
    ({"backup": {"restore": {"recovered": True}}}, "set backup.enabled=true"),
    ({"gateway": {"settings": {"MAX_HEAP_BYTES": 700 * MIB}}}, "is less than MAX_HEAP_BYTES"),
    ({"gateway": {"settings": {"MAX_HEAP_BYTES": str(897 * MIB)}, "resources": _memory("1Gi")}}, "is less than MAX_HEAP_BYTES"),
    ({"gateway": {"resources": _memory("639Mi")}}, "is less than MAX_HEAP_BYTES"),
    ({"gateway": {"ingress": INGRESS, "routes": ROUTES}}, "are both set: choose one way in"),
    ({"gateway": {"ingress": INGRESS | {"hosts": []}}}, "the Ingress needs gateway.ingress.hosts"),
    ({"global": {"pod": {"extraEnvs": []}}}, "additional properties 'extraEnvs' not allowed"),
    ({"redis": {"pod": {"nodeSelectors": {}}}}, "additional properties 'nodeSelectors' not allowed"),
    ({"global": {"imageRegistry": "https://mirror.example.com"}}, "does not match pattern"),
    ({"gateway": {"routes": ROUTES | {"parentRefs": []}}}, "the routes need gateway.routes.parentRefs"),
    ({"gateway": {"routes": ROUTES | {"grpcHostnames": ["a.example.com"]}}}, "give gRPC another"),
    ({"task-service": {"canary": {"enabled": True}}}, "the canary needs task-service.canary.image.tag or digest"),
    ({"gateway": {"autoscaling": {"minReplicas": 20}}}, "gateway.autoscaling.minReplicas is more than maxReplicas"),
]


@pytest.mark.parametrize(("values", "message"), WRONG, ids=[message for _, message in WRONG])
def test_wrong_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(HelmError) as raised:
        render(values)
    assert message in str(raised.value)


def test_the_memory_that_the_gateway_needs_is_enough() -> None:
    """The chart requires the gateway's MAX_HEAP_BYTES plus the memory outside the heap, and accepts exactly that."""
    assert GatewaySettings().max_heap_bytes + GATEWAY_BESIDE_HEAP_BYTES == 640 * MIB
    for gateway in (
        {"resources": _memory("640Mi")},
        {"settings": {"MAX_HEAP_BYTES": 896 * MIB}, "resources": _memory("1Gi")},
        {"resources": _memory("1G")},
    ):
        assert render({"gateway": gateway})


def test_a_name_that_is_too_long_is_refused() -> None:
    with pytest.raises(HelmError, match="choose a shorter one"):
        render({}, name="x" * 25)
    longest = max(len(one["metadata"]["name"]) for one in render({}, name="x" * 24))
    assert longest <= 63


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(HelmError) as raised:
        render({"postgresql": {"enabled": False}, "redis": {"enabled": False}})
    assert "no database" in str(raised.value)
    assert "no Redis" in str(raised.value)


def test_the_schema_takes_no_unknown_key_anywhere() -> None:
    schema = json.loads((ROOT / "values.schema.json").read_text())
    # Parts with Kubernetes's own schema, which the API server checks.
    free = {"affinity", "behavior", "global", "strings", "quantities", "spec"}
    open_ones = [path for path, part in _objects(schema, "") if "additionalProperties" not in part and path.rsplit("/", 1)[-1] not in free]
    assert [path for path in open_ones if not path.endswith("objects/items")] == []


def _objects(schema: Any, path: str) -> list[tuple[str, dict[str, Any]]]:
    parts = schema.items() if isinstance(schema, dict) else enumerate(schema) if isinstance(schema, list) else ()
    below = [found for name, part in parts for found in _objects(part, f"{path}/{name}")]
    return [(path, schema), *below] if isinstance(schema, dict) and schema.get("type") == "object" else below


def test_the_schema_knows_every_value_that_has_a_default() -> None:
    schema = json.loads((ROOT / "values.schema.json").read_text())
    for prefix in ("", *COMPONENTS):
        file = ROOT / "charts" / prefix / "values.yaml" if prefix else ROOT / "values.yaml"
        for row in rows(file, f"{prefix}." if prefix else ""):
            at = schema
            for name in row.path.split("."):
                at = _resolved(at, schema)["properties"][name]


def _resolved(part: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    resolved: dict[str, Any] = schema["$defs"][part["$ref"].rsplit("/", 1)[-1]] if "$ref" in part else part
    return resolved


def test_what_the_operator_says_counts_even_if_it_is_nothing() -> None:
    """0 and false override a default, and a large number keeps its digits, so that the gateway can parse it."""
    settings = {"TRUSTED_HOPS": 0, "MAX_HEAP_BYTES": 536870912, "TRACING_SAMPLE_PERCENT": 0.5}
    found = render({"gateway": {"ingress": INGRESS, "settings": settings}, "task-service": {"settings": {"REFLECTION_ENABLED": False}}})
    gateway = get(found, "ConfigMap", "task-manager-gateway")["data"]
    assert {name: gateway[name] for name in settings} == {"TRUSTED_HOPS": "0", "MAX_HEAP_BYTES": "536870912", "TRACING_SAMPLE_PERCENT": "0.5"}
    assert get(found, "ConfigMap", "task-manager-task-service")["data"]["REFLECTION_ENABLED"] == "false"


def test_the_readme_has_the_table_of_values() -> None:
    assert table() in README.read_text(encoding="utf-8")


def test_the_readme_has_every_chart_and_scenario() -> None:
    said = README.read_text(encoding="utf-8").partition("## Secrets")[0]
    for folder in (ROOT / "charts").iterdir():
        assert f"`charts/{folder.name}`" in said
    for file in SCENARIOS:
        assert f"](ci/{file.name})" in said


def test_a_value_that_nobody_described_is_found(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text("# -- What it is.\nknown: 1\n\nnew:\n  unknown: 2\n")
    with pytest.raises(NotDescribed, match=r"new\.unknown"):
        rows(file)
