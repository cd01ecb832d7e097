"""Prometheus accepts the alerts, Grafana accepts the dashboards, and the PodMonitor scrapes the jobs that they name."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from helm.chart import ROOT
from tests.deploy.rendered import get, objects, of_kind, pods
from tests.support.tools import required

CHART = ROOT / "charts" / "monitoring"
RULES, DASHBOARDS = sorted((CHART / "rules").glob("*.yaml")), sorted((CHART / "dashboards").glob("*.json"))


def test_every_file_is_in_the_cluster() -> None:
    found = objects("monitoring")
    groups = [group["name"] for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    assert [group["name"] for group in get(found, "PrometheusRule", "task-manager")["spec"]["groups"]] == groups
    shown = {
        name: text for one in of_kind(found, "ConfigMap") if "grafana_dashboard" in one["metadata"]["labels"] for name, text in one["data"].items()
    }
    assert {name: json.loads(text) for name, text in shown.items()} == {file.name: json.loads(file.read_text()) for file in DASHBOARDS}


@pytest.mark.parametrize("file", RULES, ids=lambda file: file.stem)
def test_promtool_finds_nothing_wrong(file: Path) -> None:
    promtool = required("promtool", "the Debian package prometheus has it")
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_jobs_that_alerts_and_dashboards_name_are_scraped() -> None:
    found = objects("monitoring")
    monitor = get(found, "PodMonitor", "task-manager")["spec"]
    selected = [template for _, template in pods(found) if monitor["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()]
    (endpoint,) = monitor["podMetricsEndpoints"]
    scraped = {
        template["metadata"]["labels"][monitor["jobLabel"]]
        for template in selected
        for container in template["spec"]["containers"]
        if endpoint["port"] in {port["name"] for port in container.get("ports", [])}
    }
    assert scraped == {"auth-service", "task-service", "task-worker", "gateway"}
    named = {job for file in (*RULES, *DASHBOARDS) for job in re.findall(r'job=\\?"([^"\\]+)', file.read_text())}
    assert named <= scraped


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_dashboards_have_what_grafana_wants(file: Path) -> None:
    dashboard = json.loads(file.read_text())
    assert dashboard["uid"]
    assert dashboard["title"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
