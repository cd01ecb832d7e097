"""docs/operations.md and docs/scale.md: everything that they name exists. test_scale.py tests the arithmetic."""

import math
import re
from functools import reduce
from typing import Any

import yaml

from auth_service.settings import Settings as AuthSettings
from gateway.settings import GatewaySettings
from helm.chart import ROOT as CHART
from helm.chart import read_values, render
from helm.values_table import table
from servicekit.process.commands import MigrationSettings
from task_service.settings import Settings as TaskSettings
from tests.deploy.consistency import names
from tests.deploy.rendered import of_kind
from tests.deploy.roles_script import SCRIPT
from tests.deploy.workflows import ROOT

TEXT = "\n".join((ROOT / "docs" / name).read_text() for name in ("operations.md", "scale.md"))
CODE = "\n".join(path.read_text() for package in ("servicekit", "auth_service", "task_service") for path in sorted((ROOT / package).rglob("*.py")))
# Documents with their own tests.
ELSEWHERE = {"runbook.md", "backup.md"}


def test_its_links_lead_somewhere() -> None:
    targets = {link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", TEXT)}
    assert {target for target in targets if not (ROOT / "docs" / target).exists()} <= ELSEWHERE


def test_its_targets_and_scripts_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", TEXT)) <= targets
    for script in re.findall(r"\$ (\.ci/[\w-]+)", TEXT):
        assert (ROOT / script).exists()


def test_its_values_are_the_charts() -> None:
    known = set(re.findall(r"^\| `([\w.-]+)` \|", table(), re.MULTILINE))
    parts = {name for path in known for name in (path, path.partition(".")[2])} | {
        f"{path}.requests.cpu" for path in known if path.endswith("resources")
    }
    # A path, alone or with a value: it begins with a component or with a value of the umbrella chart.
    said = re.findall(
        r"(?<![\w/.-])((?:global|auth-service|task-service|task-worker|gateway|postgresql|redis|autoscaling)(?:\.\w+)+)(?==|`|,|\s)", TEXT
    )
    assert len(set(said)) > 10
    assert set(said) <= parts


def test_its_times_are_the_charts() -> None:
    """The times of both services and of the gateway."""
    values = {name: yaml.safe_load((CHART / "charts" / name / "values.yaml").read_text()) for name in ("auth-service", "task-service", "gateway")}
    said = re.findall(r"`(minReadySeconds|drain\.\w+)`[^|]*\| (\d+) s[^|]*\| (\d+) s", TEXT)
    assert len(said) == 1 + len(values["gateway"]["drain"])
    for path, service, gateway in said:
        assert [_value(part, path) for part in values.values()] == [int(service), int(service), int(gateway)], path


def _value(values: dict[str, Any], path: str) -> Any:
    return reduce(lambda part, key: part[key], path.split("."), values)


def test_its_settings_are_the_programs() -> None:
    roles = set(re.findall(r"^\\getenv \w+ (\w+)$", SCRIPT.read_text(), re.MULTILINE))
    known = names(AuthSettings) | names(TaskSettings) | names(GatewaySettings) | names(MigrationSettings) | roles
    # Of the pipeline, and of the image of PostgreSQL.
    known |= {"IMAGE_TAG", "KUBECONFIG", "HELM_VALUES", "POSTGRES_PASSWORD"}
    reasons = set(re.findall(r"^  ([A-Z_]+) = \d", (ROOT / "proto/taskmanager/rpc/v1/error_reason.proto").read_text(), re.MULTILINE))
    codes = {"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "OUT_OF_RANGE"}
    said = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", TEXT))
    assert said <= known | reasons | codes


def test_its_metrics_are_there() -> None:
    said = set(re.findall(r"\b((?:grpc_server|db|redis|auth_security|task)_[a-z_]+)(?:\{|`|\[)", TEXT)) - {
        "task_service",
        "task_worker",
        "task_labels",
    }
    assert len(said) > 4
    assert {name for name in said if f'"{name}"' not in CODE} == set()
    for event in re.findall(r'event="(\w+)"', TEXT):
        assert f'"{event}"' in CODE


def test_its_rule_makes_the_metric_that_the_scenario_scales_by() -> None:
    (rule,) = yaml.safe_load(TEXT.partition("```yaml\n")[2].partition("```")[0])["rules"]["custom"]
    values = read_values(CHART / "ci" / "monitoring-values.yaml")
    (metric,) = values["task-service"]["autoscaling"]["metrics"]
    assert rule["name"]["as"] == metric["pods"]["metric"]["name"]
    assert f'"{rule["seriesQuery"].partition("{")[0]}"' in CODE


def test_its_objects_are_the_charts() -> None:
    canary = {"task-service": {"canary": {"enabled": True, "image": {"tag": "1"}}}}
    found = {f"{one['kind'].lower()}/{one['metadata']['name']}": one for one in render(canary)}
    for name in re.findall(r"\b((?:deployment|statefulset)/task-manager-[a-z-]+)", TEXT):
        assert name in found or name == "deployment/task-manager-"
    for secret, key in re.findall(r"\b(?:get|put) (task-manager-[a-z]+) ([a-z-]+)", TEXT):
        assert key in found[f"secret/{secret}"]["data"]


def test_a_restore_stops_all_that_writes() -> None:
    """docs/backup.md names all Deployments of the chart that use the database."""
    text = (ROOT / "docs" / "backup.md").read_text()
    found = render({"task-service": {"canary": {"enabled": True, "image": {"tag": "1"}}}})
    step = text.partition("1. Stop the services")[2].partition("2. ")[0]
    writers = [one["metadata"]["name"] for one in of_kind(found, "Deployment") if "DATABASE_URL" in repr(one)]
    assert len(writers) == 4
    assert set(re.findall(r"\bRELEASE-[a-z-]+", step)) == {name.replace("task-manager-", "RELEASE-", 1) for name in writers}


def test_its_tables_of_the_schema_are_led_by_the_user() -> None:
    said = re.search(r"leads with `user_id` \((.*?)\)", TEXT)
    assert said is not None
    sql = "\n".join(path.read_text() for path in sorted((ROOT / "task_service" / "migrations").glob("*.sql")))
    bodies = dict(re.findall(r"CREATE TABLE task\.(\w+) \((.*?)\n\);", sql, re.DOTALL))
    for dropped in re.findall(r"DROP TABLE task\.(\w+)", sql):
        del bodies[dropped]
    led = {name for name, body in bodies.items() if re.search(r"PRIMARY KEY \(user_id\b|user_id +uuid +PRIMARY KEY", body)}
    assert set(re.findall(r"`(\w+)`", said[1])) == led
    # All other tables have one row.
    assert all("single" in bodies[name] for name in bodies.keys() - led)


def _connections(component: str) -> str:
    text = (CHART / "charts" / component / "values.yaml").read_text()
    found = re.search(r"olds up to (\d+) connections to PostgreSQL with\s+#? ?DATABASE_POOL_MAX_SIZE at (\d+)", text)
    assert found is not None
    return found[1]


def test_the_budget_is_that_of_the_postgres_inside() -> None:
    values: dict[str, Any] = yaml.safe_load((CHART / "charts" / "postgresql" / "values.yaml").read_text())
    assert f"(`postgresql.maxConnections`, {values['maxConnections']}," in TEXT
    pods = {name: _component(name)["autoscaling"]["maxReplicas"] for name in ("task-service", "auth-service")}
    pods["task-worker"] = _component("task-worker")["replicas"]
    # As in the table: the new pods while all roll, and as many stopping ones; plus ten connections.
    most = sum((count + 2 * math.ceil(count / 4)) * int(_connections(name)) for name, count in pods.items())
    assert most + 10 <= values["maxConnections"]
    assert f"({most} with the default maxima)" in (CHART / "charts" / "postgresql" / "values.yaml").read_text()


def _component(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((CHART / "charts" / name / "values.yaml").read_text())
    return values
