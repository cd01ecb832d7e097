"""The chart's alerts concern only their own release: in a cluster with other releases, each alert fires exactly as for a single system."""

import re
import subprocess
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from helm.chart import ROOT, Object, render
from helm.dashboards.__main__ import FOLDER as DASHBOARDS
from tests.deploy.observed import HOW
from tests.deploy.promql import named
from tests.deploy.rendered import get
from tests.support.tiers import first_quick
from tests.support.tools import required

RULES: Final = ROOT / "charts" / "monitoring" / "rules"
TESTS: Final = sorted((RULES / "tests").glob("*.yaml"))
# The name of the release and the namespace in the unit tests.
OURS: Final = "tm"
RUNBOOK: Final = "https://docs.example.com/runbook.md"
JOBS: Final = ("auth-service", "task-service", "task-worker", "gateway")

each = pytest.mark.parametrize("file", first_quick(TESTS), ids=lambda file: file.stem)


def _rendered(**rules: Any) -> list[Object]:
    return render({"monitoring": {"enabled": True, "rules": {"runbook": RUNBOOK, **rules}}}, name=OURS, namespace=OURS)


@pytest.fixture(scope="module")
def groups() -> list[dict[str, Any]]:
    """The groups of the release's PrometheusRule."""
    found: list[dict[str, Any]] = get(_rendered(), "PrometheusRule", OURS)["spec"]["groups"]
    return found


def _rules(groups: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for group in groups:
        yield from group["rules"]


def _unscoped(query: str) -> list[str]:
    """Returns the selectors that also select series of another release."""
    lines = []
    for selector in named(query).selectors:
        by_release = ("release", "=", OURS) in selector.matchers
        # Metrics of kube-state-metrics: the object's name begins with the release.
        by_name = any(operator == "=~" and text.startswith(f"{OURS}-") for _, operator, text in selector.matchers)
        if ("namespace", "=", OURS) not in selector.matchers or not (by_name if selector.name.startswith("kube_") else by_release):
            lines.append(selector.name)
    return lines


def test_every_selector_is_of_this_release_alone(groups: list[dict[str, Any]]) -> None:
    assert [(rule["expr"], found) for rule in _rules(groups) if (found := _unscoped(rule["expr"]))] == []
    assert len(list(_rules(groups))) > 30


@pytest.mark.parametrize(
    "query",
    [
        f'up{{namespace="{OURS}"}}',
        f'up{{release="{OURS}"}}',
        f'up{{namespace="{OURS}", release="{OURS}"}} / up',
        f'kube_cronjob_created{{namespace="{OURS}", cronjob=~".+-backup"}}',
        f'kube_cronjob_created{{cronjob=~"{OURS}-backup"}}',
    ],
)
def test_a_selector_of_what_is_another_release_s_is_found(query: str) -> None:
    assert _unscoped(query) != []


@pytest.mark.parametrize("file", sorted(RULES.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_selector_has_a_matcher_beside_which_the_chart_can_put_its_own(file: Path) -> None:
    for rule in _rules(yaml.safe_load(file.read_text())["groups"]):
        assert [selector.name for selector in named(rule["expr"]).selectors if not selector.matchers] == [], rule["expr"]


def test_what_is_recorded_keeps_the_release(groups: list[dict[str, Any]]) -> None:
    """Otherwise two releases would record series and send alerts that cannot be distinguished. A query without an aggregation keeps all labels."""
    for rule in _rules(groups):
        for kept in re.findall(r"\bby \(([^)]*)\)", rule["expr"]):
            labels = set(re.findall(r"\w+", kept))
            assert "namespace" in labels, rule["expr"]
            assert "release" in labels or labels & {"pod", "cronjob"}, rule["expr"]


def test_pods_are_scraped_with_the_release_that_the_rules_ask_for() -> None:
    (endpoint,) = get(_rendered(), "PodMonitor", OURS)["spec"]["podMetricsEndpoints"]
    assert endpoint["relabelings"] == [{"targetLabel": "release", "replacement": OURS}]


# ----------------------------------------------------------------------------------------------- the unit tests, among neighbours


def _series(text: str, namespace: str, release: str) -> str:
    """Returns the series with the labels of that release in that namespace."""
    moved = text.replace(f'namespace="{OURS}"', f'namespace="{namespace}"')
    if text.startswith("kube_"):
        return moved.replace(f'="{OURS}-', f'="{release}-')
    return moved.replace("{", f'{{release="{release}", ')


NEIGHBOURS: Final = {"in its namespace": (OURS, "other"), "in another namespace": ("elsewhere", OURS)}


def _with_neighbour(case: dict[str, Any], neighbour: tuple[str, str], *, well: bool) -> dict[str, Any]:
    """Adds another release to a unit test: with `well` a healthy one, otherwise one with the same series. The expected alerts stay the same."""
    case = deepcopy(case)
    given = case["input_series"]
    case["input_series"] = [{**one, "series": _series(one["series"], OURS, OURS)} for one in given]
    if well:
        namespace, release = neighbour
        case["input_series"] += [
            {"series": f'up{{release="{release}", namespace="{namespace}", job="{job}", instance="{job}-9"}}', "values": "1x90"} for job in JOBS
        ]
    else:
        case["input_series"] += [{**one, "series": _series(one["series"], *neighbour)} for one in given]
    from_kubernetes = all(one["series"].startswith("kube_") for one in given)
    for check in case["alert_rule_test"]:
        for alert in check.get("exp_alerts", []):
            alert["exp_labels"] |= {"namespace": OURS} if from_kubernetes else {"namespace": OURS, "release": OURS}
            alert["exp_annotations"]["runbook_url"] = alert["exp_annotations"]["runbook_url"].replace("docs/runbook.md", RUNBOOK)
    return case


def _promtool(folder: Path, file: Path, groups: list[dict[str, Any]], neighbour: tuple[str, str], *, well: bool = False) -> tuple[int, str]:
    """Runs the unit tests of a file on these rules, with that neighbor."""
    # BaseLoader keeps all values as text: otherwise 0x60 (an hour of zeros) would be parsed as a number.
    test = yaml.load(file.read_text(), yaml.BaseLoader)
    of_file = {group["name"] for path in test["rule_files"] for group in yaml.safe_load((file.parent / path).read_text())["groups"]}
    test["rule_files"] = ["rules.yaml"]
    test["tests"] = [_with_neighbour(case, neighbour, well=well) for case in test["tests"]]
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": [group for group in groups if group["name"] in of_file]}))
    (folder / "tests.yaml").write_text(yaml.safe_dump(test))
    done = subprocess.run([required("promtool", HOW), "test", "rules", str(folder / "tests.yaml")], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("where", first_quick(NEIGHBOURS))
@each
def test_what_happens_to_a_neighbour_is_not_counted(file: Path, where: str, groups: list[dict[str, Any]], tmp_path: Path) -> None:
    code, said = _promtool(tmp_path, file, groups, NEIGHBOURS[where])
    assert code == 0, said


@pytest.mark.parametrize("where", first_quick(NEIGHBOURS))
def test_a_neighbour_that_is_well_hides_nothing(where: str, groups: list[dict[str, Any]], tmp_path: Path) -> None:
    code, said = _promtool(tmp_path, RULES / "tests" / "availability.yaml", groups, NEIGHBOURS[where], well=True)
    assert code == 0, said


@pytest.mark.parametrize(
    ("file", "scope", "where", "well"),
    first_quick(
        [
            ("availability", f'namespace="{OURS}", ', "in another namespace", True),
            ("availability", f'release="{OURS}", ', "in its namespace", True),
            ("sessions", f'namespace="{OURS}", ', "in another namespace", False),
            ("sessions", f'release="{OURS}", ', "in its namespace", False),
            ("cluster", f'namespace="{OURS}", ', "in another namespace", False),
            ("cluster", f"{OURS}-", "in its namespace", False),
        ]
    ),
)
def test_rules_that_lack_a_part_of_their_scope_are_found(
    file: str, scope: str, where: str, *, well: bool, groups: list[dict[str, Any]], tmp_path: Path
) -> None:
    wider = deepcopy(groups)
    for rule in _rules(wider):
        rule["expr"] = rule["expr"].replace(scope, ".+-" if scope == f"{OURS}-" else "")
    code, said = _promtool(tmp_path, RULES / "tests" / f"{file}.yaml", wider, NEIGHBOURS[where], well=well)
    assert code != 0
    assert "FAILED" in said


# ------------------------------------------------------------------------------------------------------------------------ the values


def test_the_runbook_is_a_url_or_not_named(groups: list[dict[str, Any]]) -> None:
    alerts = [rule for rule in _rules(groups) if "alert" in rule]
    assert {alert["annotations"]["runbook_url"] for alert in alerts} == {f"{RUNBOOK}#{alert['alert'].lower()}" for alert in alerts}
    without = get(_rendered(runbook=""), "PrometheusRule", OURS)["spec"]["groups"]
    assert [set(rule["annotations"]) for rule in _rules(without) if "alert" in rule] == [{"summary", "description"}] * len(alerts)


def test_how_old_a_backup_may_be_is_a_value() -> None:
    weekly = {rule.get("alert"): rule for rule in _rules(get(_rendered(backupMaxAgeHours=180), "PrometheusRule", OURS)["spec"]["groups"])}
    assert weekly["TaskManagerBackupTooOld"]["expr"].endswith("> 180 * 3600")


def test_dashboards_show_what_is_of_the_releases_that_are_chosen() -> None:
    for file in DASHBOARDS.glob("*.json"):
        for query in re.findall(r'"expr": "(.*)"', file.read_text()):
            for selector in named(query.replace('\\"', '"')).selectors:
                assert any("$release" in text for _, _, text in selector.matchers), query
                assert ("namespace", "=~", "$namespace") in selector.matchers, query
