"""The released chart names its images by digest and changes nothing else; .ci/verify-release verifies all signatures."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helm_python import Chart, lint

from helm.chart import ROOT, Object
from helm.release import IMAGES, WrongDigests, others, write
from tests.deploy.rendered import SCENARIOS, of_kind, pods
from tests.deploy.workflows import ROOT as REPOSITORY

MONITORING = Path("charts") / "monitoring" / "values.yaml"
DIGESTS = {name: f"sha256:{number:064x}" for number, name in enumerate([*IMAGES, *sorted(others())])}
REGISTRY = "ghcr.io/somebody/task-manager"
RUNBOOK = "https://git.example.com/somebody/task-manager/blob/v1.2.3/docs/runbook.md"


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A released chart."""
    write(tmp_path / "task-manager", REGISTRY, RUNBOOK, DIGESTS)
    return tmp_path / "task-manager"


def _rendered(root: Path, values: dict[str, object]) -> list[Object]:
    with Chart.load(root) as chart:
        texts = chart.render(values, name="task-manager", namespace="task-manager")
    return [one for file, text in texts.items() if file.endswith(".yaml") for one in yaml.safe_load_all(text) if one]


def _images(root: Path, values: dict[str, object]) -> set[str]:
    specs = [template["spec"] for _, template in pods(_rendered(root, values))]
    return {container["image"] for spec in specs for container in spec.get("initContainers", []) + spec["containers"]}


def test_every_image_is_named_by_its_digest(released: Path) -> None:
    images = _images(released, {"backup": {"enabled": True, "s3": {"enabled": True, "path": "bucket"}, "restore": {"recovered": True}}})
    assert images == {f"{REGISTRY}/{name}@{DIGESTS[name]}" for name in IMAGES} | {
        f"{image.rpartition(':')[0]}@{DIGESTS[image]}" for image in others()
    }


def test_a_canary_is_another_image(released: Path) -> None:
    images = _images(released, {"task-service": {"canary": {"enabled": True, "image": {"tag": "9.9.9"}}}})
    assert f"{REGISTRY}/task-service:9.9.9" in images


def test_its_alerts_lead_to_the_runbook_of_its_version(released: Path) -> None:
    (rules,) = of_kind(_rendered(released, {"monitoring": {"enabled": True}}), "PrometheusRule")
    alerts = [rule for group in rules["spec"]["groups"] for rule in group["rules"] if "alert" in rule]
    assert {alert["annotations"]["runbook_url"] for alert in alerts} == {f"{RUNBOOK}#{alert['alert'].lower()}" for alert in alerts}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_it_takes_every_scenario(released: Path, scenario: str) -> None:
    report = lint(released, dict(SCENARIOS[scenario]), strict=True, with_subcharts=False)
    assert report["errors"] == []


def test_nothing_else_is_changed(released: Path) -> None:
    changed = {
        path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file() and path.read_bytes() != (released / path.relative_to(ROOT)).read_bytes()
    }
    stores = {Path("charts", name, "values.yaml") for name in ("postgresql", "redis", "backup")}
    assert changed == {Path("values.yaml"), MONITORING} | stores
    for file in stores:
        assert re.sub(r"sha256:[0-9a-f]{64}", "", (released / file).read_text()) == (ROOT / file).read_text()
    assert (released / MONITORING).read_text().replace(RUNBOOK, "") == (ROOT / MONITORING).read_text()
    assert (released / "values.yaml").read_text().startswith((ROOT / "values.yaml").read_text())


@pytest.mark.parametrize("digests", [{}, DIGESTS | {"envoy": "sha256:" + "0" * 64}, DIGESTS | {"gateway": "latest"}, DIGESTS | {"gateway": ""}])
def test_what_is_no_digest_of_each_image_is_refused(tmp_path: Path, digests: dict[str, str]) -> None:
    with pytest.raises(WrongDigests):
        write(tmp_path / "task-manager", REGISTRY, RUNBOOK, digests)
    assert not (tmp_path / "task-manager").exists()


def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "helm.release", str(tmp_path / "chart"), "--registry", REGISTRY, "--runbook", RUNBOOK, "gateway=sha256:1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "digests of auth-service, docker.io/library/postgres:" in done.stderr


# ------------------------------------------------------------------------------------------------------- verifying, with stand-ins

PROGRAMS = {
    "helm": 'case "$1" in pull) echo "Pulled: it"; echo "Digest: sha256:chart" ;; show) : ;; esac',
    # The expression names the image.
    "yq": 'expression=$2; name=${expression#*\\"}; echo ghcr.io/somebody/task-manager/${name%%\\"*}@sha256:image',
    "cosign": 'echo "$*" >>"$CALLS"; case "$*" in *"$UNSIGNED"*) exit 1 ;; esac',
    "docker": "echo sha256:base",
}


def _with_programs(tmp_path: Path, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    for name, text in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    given = {"PATH": f"{programs}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls"), **environment}
    return subprocess.run([REPOSITORY / command[0], *command[1:]], env=given, capture_output=True, text=True, check=False, timeout=60)


def test_chart_and_images_are_verified_by_digest_and_by_who_signed_them(tmp_path: Path) -> None:
    done = _with_programs(tmp_path, ".ci/verify-release", "Somebody/task-manager", "1.2.3", UNSIGNED="nothing")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{REGISTRY}/charts/task-manager@sha256:chart"
    calls = (tmp_path / "calls").read_text().splitlines()
    wanted = ["charts/task-manager@sha256:chart", *(f"{name}@sha256:image" for name in IMAGES)]
    assert [call.rpartition(" ghcr.io/somebody/task-manager/")[2] for call in calls] == wanted
    identity = "https://github.com/Somebody/task-manager/.github/workflows/release.yml@refs/tags/v1.2.3"
    assert all(f"--certificate-identity {identity} " in call for call in calls)


@pytest.mark.parametrize("unsigned", ["charts/task-manager", "auth-service", "gateway"])
def test_what_somebody_else_signed_is_refused(tmp_path: Path, unsigned: str) -> None:
    assert _with_programs(tmp_path, ".ci/verify-release", "Somebody/task-manager", "1.2.3", UNSIGNED=f"{unsigned}@").returncode != 0


def test_the_bases_get_the_digests_of_now(tmp_path: Path) -> None:
    done = _with_programs(tmp_path, ".ci/bases")
    lines = done.stdout.splitlines()
    assert [line.partition("=")[0] for line in lines] == ["ENVOY_IMAGE", "PYTHON_IMAGE"]
    assert all(line.endswith("@sha256:base") for line in lines)
    for line in lines:
        assert f"ARG {line.removesuffix('@sha256:base')}" in (REPOSITORY / "gateway" / "Dockerfile").read_text()
