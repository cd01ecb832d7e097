"""The script of the kind job, with fakes of helm and kubectl: it fails if an upgrade changes a secret, or if a call under load fails."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.deploy.kind.load import HEAD, OPERATIONS, summary, write
from tests.deploy.kind.reach import ALLOWED, PORTS, STRANGER
from tests.deploy.rendered import get, objects, of_kind
from tests.deploy.workflows import ROOT
from tests.support.load import OK, Outcome

SCRIPT = ROOT / "tests" / "deploy" / "kind" / "run.sh"
HELM = """#!/bin/sh
printf '%s\\n' "helm $*" >>"$CALLS"
case "$*" in *upgrade*) eval "$ON_UPGRADE" ;; esac
"""
# A fake cluster: its Secrets and settings are files.
KUBECTL = """#!/bin/sh
printf '%s\\n' "kubectl $*" >>"$CALLS"
case "$*" in
  *"get secrets"*) cat "$CLUSTER/secrets" ;;
  *"get configmap"*) cat "$CLUSTER/level" ;;
  *"get pods"*) cat "$CLUSTER/ending" && : >"$CLUSTER/ending" ;;
esac
"""
SECRETS = 'task-manager-database {"a":"1"}\ntask-manager-keys {"b":"2"}\ntask-manager-redis {"c":"3"}\n'


def _run(tmp_path: Path, *steps: str, on_upgrade: str, secrets: str = SECRETS) -> "subprocess.CompletedProcess[str]":
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"helm": HELM, "kubectl": KUBECTL}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (tmp_path / "secrets").write_text(secrets)
    (tmp_path / "level").write_text("INFO")
    (tmp_path / "ending").write_text("task-manager-gateway-1")
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "CLUSTER": str(tmp_path),
        "ON_UPGRADE": on_upgrade,
        "REPORT_DIR": str(tmp_path / "report"),
    }
    return subprocess.run([SCRIPT, *steps], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)


APPLIED = 'printf DEBUG >"$CLUSTER/level"'


def test_an_upgrade_that_keeps_the_secrets_passes(tmp_path: Path) -> None:
    done = _run(tmp_path, "install", "smoke", "upgrade", on_upgrade=APPLIED)
    assert done.returncode == 0, done.stderr
    assert "the secrets are the same after the upgrade" in done.stdout
    assert '"1"' not in done.stdout
    calls = (tmp_path / "calls").read_text()
    assert calls.count("helm ") == 4
    assert "label --overwrite namespace task-manager pod-security.kubernetes.io/enforce=restricted" in calls
    # The script never uses another cluster than kind's.
    assert all("context kind-task-manager " in line for line in calls.splitlines())


@pytest.mark.parametrize(
    ("on_upgrade", "generated"),
    [
        (APPLIED + """; sed -i s/2/9/ "$CLUSTER/secrets" """, SECRETS),
        (APPLIED + """; sed -i 2d "$CLUSTER/secrets" """, SECRETS),
        (":", SECRETS),
        ("exit 1", SECRETS),
        (APPLIED, ""),
    ],
    ids=["a secret changes", "a secret goes", "nothing is upgraded", "the upgrade fails", "nothing is generated"],
)
def test_another_one_fails(tmp_path: Path, on_upgrade: str, generated: str) -> None:
    assert _run(tmp_path, "upgrade", on_upgrade=on_upgrade, secrets=generated).returncode != 0


@pytest.mark.parametrize("step", [("restart", "gateway"), ("scale", "gateway", "2")], ids=["rolled", "scaled"])
def test_a_change_is_over_when_the_old_pods_are_gone(tmp_path: Path, step: tuple[str, ...]) -> None:
    assert _run(tmp_path, *step, on_upgrade=":").returncode == 0
    calls = [line.partition("--namespace task-manager ")[2].split()[0] for line in (tmp_path / "calls").read_text().splitlines()]
    assert calls == [*(["rollout", "rollout"] if step[0] == "restart" else ["upgrade"]), "get", "get"]


def _outcome(seconds: float, code: str = OK, operation: str = "get") -> Outcome:
    return Outcome(operation, "id", 0.0, seconds, code, "" if code == OK else f"{code}: gone")


OF_EACH_KIND = [_outcome(0.001, operation=operation) for operation in sorted(OPERATIONS)]


def test_the_report_counts_and_names_what_failed(tmp_path: Path) -> None:
    outcomes = [*OF_EACH_KIND, *(_outcome(number / 1000) for number in range(9, 100)), _outcome(0.5, "UNAVAILABLE")]
    report = summary("gateway: rolled", 12.0, outcomes, ["watch: a change was not told"], told=7, resumed=1)
    assert (report.calls, report.failed, report.failures) == (101, 2, ["get: UNAVAILABLE: gone", "watch: a change was not told"])
    assert (report.p50_ms, report.p99_ms, report.slowest_ms) == (50.0, 99.0, 500.0)
    write(report, tmp_path)
    write(report, tmp_path)
    assert (tmp_path / "report.md").read_text() == HEAD + 2 * "| gateway: rolled | 12 | 101 | 1 | 1 | 7 | 1 | 2 | 50.0 | 99.0 | 500.0 |\n"
    assert len((tmp_path / "report.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("never", [*sorted(OPERATIONS), ""])
def test_a_load_without_a_kind_of_call_shows_nothing(never: str) -> None:
    outcomes = [outcome for outcome in OF_EACH_KIND if never and outcome.operation != never]
    with pytest.raises(ValueError, match=f"no call was made: .*{never}"):
        summary("nothing", 1.0, outcomes, [], told=1, resumed=0)


def test_an_unknown_cluster_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [SCRIPT, "smoke"], env=os.environ | {"TEST_CLUSTER": "production"}, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "kind, lab or current" in done.stderr


def test_who_may_reach_whom_is_what_the_policies_say() -> None:
    """The list that a real cluster is compared with, from the rendered policies."""
    found = objects("defaults")
    ports = {number: f"{component}.{name}" for component, names in PORTS.items() for name, number in names.items()}
    for source, allowed in ALLOWED.items():
        if source == STRANGER:
            continue
        egress = get(found, "NetworkPolicy", f"task-manager-{source}")["spec"]["egress"]
        assert {ports[port["port"]] for rule in egress for port in rule["ports"] if port["port"] in ports} == allowed, source
    open_to_all = [
        ports[port["port"]]
        for one in of_kind(found, "NetworkPolicy")
        for rule in one["spec"].get("ingress", [])
        if "from" not in rule
        for port in rule["ports"]
    ]
    assert set(open_to_all) == ALLOWED[STRANGER]
