"""Dashboards and alerts: every metric that they name exists, Prometheus accepts every query, and each alert fires exactly when it should."""

import asyncio
import json
import math
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from devstack.stack import Stack
from helm.dashboards.__main__ import FOLDER as DASHBOARDS
from helm.dashboards.__main__ import files
from helm.dashboards.model import GRID_WIDTH
from tests.deploy.observed import HOW, Prometheus, prometheus, scraped, traffic
from tests.deploy.observed import targets as scraped_targets
from tests.deploy.promql import Labels, Selector, missing, named
from tests.gateway.stack import Stack as StubbedStack
from tests.gateway.stack import gateway_behind
from tests.support.accounts import log_in, make_account
from tests.support.tiers import first_quick
from tests.support.tools import required
from tests.support.waiting import eventually

# Envoy merges its histograms every 5 s, and Prometheus scrapes every second.
SHOWN_WITHIN_SECONDS = 15.0
RULES: Final = DASHBOARDS.parent / "rules"
RUNBOOK: Final = Path(__file__).resolve().parents[2] / "docs" / "runbook.md"
RULE_FILES: Final = sorted(RULES.glob("*.yaml"))

KUBE: Final = "kube-state-metrics has it, and is the cluster's, not ours"
# Metrics that no scrape of the devstack has, and the reason.
EXEMPT: Final = {
    "kube_cronjob_created": KUBE,
    "kube_cronjob_status_last_successful_time": KUBE,
    "kube_deployment_spec_replicas": KUBE,
    "kube_deployment_status_replicas_available": KUBE,
    "kube_horizontalpodautoscaler_spec_max_replicas": KUBE,
    "kube_horizontalpodautoscaler_spec_min_replicas": KUBE,
    "kube_horizontalpodautoscaler_status_current_replicas": KUBE,
    "kube_horizontalpodautoscaler_status_desired_replicas": KUBE,
    "kube_job_status_failed": KUBE,
    "kube_pod_container_status_last_terminated_reason": KUBE,
    "kube_pod_container_status_restarts_total": KUBE,
}
# Panels that are empty in normal operation.
EMPTY_WHEN_WELL: Final = {"Failing readiness checks", "Days until a certificate expires"}
# Values for Grafana's variables. The interval is longer than this module's tests take, because their traffic must lie in it until the last query.
VARIABLES: Final = {
    "$__rate_interval": "5m",
    "$namespace": ".*",
    "$release": ".*",
    "$job": "auth-service|task-service|task-worker|gateway",
    "$pod": ".*",
}


def dashboards() -> list[tuple[str, dict[str, Any]]]:
    """Returns each dashboard with its file name."""
    return [(file.name, json.loads(file.read_text(encoding="utf-8"))) for file in sorted(DASHBOARDS.glob("*.json"))]


def targets() -> list[tuple[str, dict[str, Any]]]:
    """Returns each query of each panel, with the panel's title."""
    return [(panel["title"], target) for _, dashboard in dashboards() for panel in dashboard["panels"] for target in panel.get("targets", ())]


def filled(query: str) -> str:
    """Returns the query with values for Grafana's variables."""
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    return query


def rules() -> list[dict[str, Any]]:
    """Returns all rules of all files."""
    return [rule for file in RULE_FILES for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


ALERTS: Final = [rule for rule in rules() if "alert" in rule]
RECORDED: Final = {rule["record"]: "a rule records it" for rule in rules() if "record" in rule}
QUERIES: Final = sorted({filled(target["expr"]) for _, target in targets()} | {rule["expr"] for rule in rules()})


def is_exempt(query: str) -> bool:
    return any(selector.name in EXEMPT for selector in named(query).selectors)


@pytest.fixture(scope="module")
async def series(system: Stack, rest: httpx.AsyncClient) -> list[tuple[str, Labels]]:
    """The series of a scrape of all processes, after some traffic."""
    account = await make_account(rest)
    await traffic(rest, account.headers)
    return await scraped(system)


# -------------------------------------------------------------------------------------------------- every named metric is scraped


@pytest.mark.parametrize("query", QUERIES)
def test_all_that_a_query_names_is_scraped(query: str, series: list[tuple[str, Labels]]) -> None:
    assert list(missing(query, series, EXEMPT | RECORDED)) == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("sum by (grpc_method) (rate(grpc_server_handled_totals[5m]))", ["no series grpc_server_handled_totals", "no label grpc_method"]),
        ('redis_breaker_open{job="tasks"}', ["no series redis_breaker_open with (('job', '=', 'tasks'),)"]),
        (
            'auth_security_events_total{event=~"refresh_token_use"}',
            ["no series auth_security_events_total with (('event', '=~', 'refresh_token_use'),)"],
        ),
        ("sum by (method) (rate(grpc_server_handled_total[5m]))", ["no label method"]),
        ("db_pool_connections / on (pool) db_pool_connections_limit", ["no label pool"]),
    ],
    ids=["name", "job", "value", "label", "join"],
)
def test_a_planted_wrong_name_is_found(query: str, found: list[str], series: list[tuple[str, Labels]]) -> None:
    assert list(missing(query, series, EXEMPT)) == found


def test_what_a_query_names_is_read_as_prometheus_reads_it() -> None:
    query = 'max by (a, b) (x{c="d}", e=~"f|g"}) / on (h) group_left (i) rate(y[5m] offset 1h) > 2e3 and time() - k unless sum(l) by (m) or inf'
    selectors = (Selector("x", (("c", "=", "d}"), ("e", "=~", "f|g"))), Selector("y"), Selector("k"), Selector("l"))
    assert (named(query).selectors, named(query).labels) == (selectors, {"a", "b", "h", "i", "m"})


def test_no_exemption_is_of_something_that_is_scraped_or_that_nobody_names(series: list[tuple[str, Labels]]) -> None:
    assert set(EXEMPT) & {name for name, _ in series} == set()
    assert set(EXEMPT) - {selector.name for query in QUERIES for selector in named(query).selectors} == set()


def test_the_rate_limits_metric_is_scraped_where_there_is_a_rate_limit(tmp_path: Path) -> None:
    with StubbedStack.started(tmp_path) as stack, gateway_behind(stack, rate_limit_per_second=1, rate_limit_burst=1) as gateway:
        assert 429 in {gateway.request("GET", "/api/v1/tasks").status_code for _ in range(5)}
        lines = httpx.get(f"{gateway.ops}/metrics").text.splitlines()
    assert any(re.match(r"envoy_http_local_rate_limit_rate_limited\{.*client_address.*} [1-9]", line) for line in lines)


# ------------------------------------------------------------------------------------------------------------ a real Prometheus


@pytest.fixture(scope="module")
async def scraping(system: Stack, rest: httpx.AsyncClient, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Prometheus]:
    """A Prometheus that has scraped the system before and after some traffic, and evaluates our rules."""
    account = await make_account(rest)
    processes = len(list(scraped_targets(system)))
    async with prometheus(system, RULE_FILES, tmp_path_factory.mktemp("prometheus")) as made:

        async def has_scraped_all() -> None:
            assert len(await made.query("up == 1 and scrape_samples_scraped > 0")) == processes

        await eventually(has_scraped_all, within=15)
        await log_in(rest, account)
        await traffic(rest, account.headers)
        await asyncio.sleep(2.5)  # two scrapes, and an evaluation of the rules over them
        yield made


@pytest.mark.parametrize("query", QUERIES)
async def test_prometheus_takes_every_query(query: str, scraping: Prometheus) -> None:
    await scraping.query(query)


async def test_prometheus_refuses_a_planted_query(scraping: Prometheus) -> None:
    with pytest.raises(AssertionError, match="parse error"):
        await scraping.query("sum by (job (up)")


@pytest.mark.parametrize(("panel", "target"), targets(), ids=[f"{title}: {target['refId']}" for title, target in targets()])
async def test_a_panel_shows_something_and_can_name_it(panel: str, target: dict[str, Any], scraping: Prometheus) -> None:
    query = filled(target["expr"])
    if is_exempt(query) or panel in EMPTY_WHEN_WELL:
        return

    async def shown() -> list[Any]:
        # NaN does not count: it is the result of 0 / 0.
        numbers = [one for one in await scraping.query(query) if not math.isnan(float(one["value"][1]))]
        assert numbers, query
        return numbers

    numbers = await eventually(shown, within=SHOWN_WITHIN_SECONDS)
    wanted = set(re.findall(r"\{\{\s*(\w+)\s*\}\}", target["legendFormat"]))
    assert wanted <= set(numbers[0]["metric"]), f"{query} has not the labels of its legend"


@pytest.mark.parametrize("name", sorted(RECORDED))
async def test_what_is_recorded_is_there(name: str, scraping: Prometheus) -> None:
    async def check() -> None:
        assert {one["metric"]["job"] for one in await scraping.query(name)} == {"auth-service", "task-service"}

    await eventually(check, within=SHOWN_WITHIN_SECONDS)


async def test_prometheus_evaluates_every_rule(scraping: Prometheus) -> None:
    async def check() -> None:
        assert {(rule["name"], rule["health"], rule.get("lastError", "")) for rule in await scraping.rules()} == {
            (rule.get("alert") or rule["record"], "ok", "") for rule in rules()
        }

    await eventually(check, within=10)


# ------------------------------------------------------------------------------------------------------------ the rules


def promtool(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([required("promtool", HOW), *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("file", RULE_FILES, ids=lambda file: file.stem)
def test_promtool_finds_nothing_wrong(file: Path) -> None:
    code, said = promtool("check", "rules", str(file))
    assert code == 0, said


@pytest.mark.parametrize("file", first_quick(sorted((RULES / "tests").glob("*.yaml"))), ids=lambda file: file.stem)
def test_each_alert_fires_when_it_should_and_only_then(file: Path) -> None:
    code, said = promtool("test", "rules", str(file))
    assert code == 0, said


@pytest.mark.slow("promtool evaluates hours for each case")
@pytest.mark.parametrize(
    ("tests", "right", "wrong"),
    [
        ("sessions.yaml", "revocations_age_seconds{job=~", "revocations_age_second{job=~"),
        ("sessions.yaml", 'event="refresh_token_reused"', 'event="login_failed"'),
        ("stores.yaml", "max by (namespace, release, job) (service_ready_check", "min by (namespace, release, job) (service_ready_check"),
        ("gateway.yaml", "> 0.05", "> 0.5"),
        ("availability.yaml", 'grpc_type="unary", grpc_code=~"Internal|Unknown|Unavailable', 'grpc_code=~"Internal|Unknown|Unavailable'),
        ("availability.yaml", ' or absent(up{job="gateway"})', ""),
        ("backups.yaml", "> 26 * 3600", "> 30 * 3600"),
    ],
    ids=["name", "value", "aggregation", "threshold", "streams", "absence", "age"],
)
def test_a_planted_wrong_rule_fails_its_test(tests: str, right: str, wrong: str, tmp_path: Path) -> None:
    shutil.copytree(RULES, tmp_path / "rules")
    # The rules that the file tests.
    (rules_of,) = yaml.safe_load((RULES / "tests" / tests).read_text(encoding="utf-8"))["rule_files"]
    planted = (tmp_path / "rules" / "tests" / rules_of).resolve()
    text = planted.read_text(encoding="utf-8")
    assert right in text
    planted.write_text(text.replace(right, wrong), encoding="utf-8")
    code, said = promtool("test", "rules", str(tmp_path / "rules" / "tests" / tests))
    assert code != 0
    assert "FAILED" in said


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    fires: dict[str, set[bool]] = {}
    for file in (RULES / "tests").glob("*.yaml"):
        for case in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]:
            for check in case["alert_rule_test"]:
                fires.setdefault(check["alertname"], set()).add(bool(check.get("exp_alerts")))
    assert fires == {rule["alert"]: {True, False} for rule in ALERTS}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_each_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"


def test_the_runbook_has_a_section_for_each_alert_in_their_order() -> None:
    sections = re.findall(r"^### (\w+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    assert sections == [
        rule["alert"] for name in ("availability", "stores", "sessions", "gateway", "cluster") for rule in ALERTS if rule in _of(name)
    ]


def _of(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / f"{name}.yaml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


# ------------------------------------------------------------------------------------------------------------ the dashboards


def test_the_files_are_what_the_description_says() -> None:
    """`python -m helm.dashboards` writes them."""
    assert {file.name: file.read_text(encoding="utf-8") for file in DASHBOARDS.iterdir()} == files()


@pytest.mark.parametrize(("name", "dashboard"), dashboards(), ids=[name for name, _ in dashboards()])
def test_a_dashboard_has_what_grafana_wants(name: str, dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert dashboard["uid"] == f"task-manager-{name.removesuffix('.json')}"
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["datasource", "namespace", "release", "job", "pod"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, f"{panel['title']} lies upon another"
        assert max(x for x, _ in cells) < GRID_WIDTH
        taken |= cells
        assert panel["type"] == "row" or panel["datasource"]["uid"] == "${datasource}"


def test_what_needs_kube_state_metrics_says_so() -> None:
    for _, dashboard in dashboards():
        row = ""
        for panel in dashboard["panels"]:
            row = panel["title"] if panel["type"] == "row" else row
            if any("kube_" in target["expr"] for target in panel.get("targets", ())):
                assert "needs kube-state-metrics" in row, panel["title"]
