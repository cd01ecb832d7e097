"""The workflows are complete, have timeouts and pinned actions, and name only existing files and targets."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from helm.chart import ROOT as CHART
from helm.release import IMAGES
from tests.deploy.workflows import ROOT, commands, faults, pythons, read, steps, texts
from tests.support.tools import required

TEXTS = texts()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SCRIPTS = [*sorted((ROOT / ".ci").iterdir()), ROOT / "tests" / "deploy" / "kind" / "run.sh"]


def test_all_are_there() -> None:
    assert set(TEXTS) == {"ci", "release", "deploy"}


@pytest.mark.parametrize("name", TEXTS)
def test_nothing_is_wrong(name: str) -> None:
    assert faults(name, TEXTS[name]) == []


def test_actionlint_finds_nothing() -> None:
    # The files by name, because without them actionlint needs a Git repository.
    command = [Path(sys.executable).with_name("actionlint"), *sorted(ROOT.glob(".github/workflows/*.yml"))]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_are_clean_and_can_be_run(script: Path) -> None:
    ended = subprocess.run([required("shellcheck", "apt-get install shellcheck"), script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    assert script.stat().st_mode & 0o111
    assert "set -euo pipefail" in script.read_text()


def _supported() -> list[str]:
    return [found[1] for line in PROJECT["classifiers"] if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line))]


def test_the_tests_run_on_every_python_that_is_supported() -> None:
    assert pythons(read(TEXTS["ci"])) == _supported()
    assert PROJECT["requires-python"] == f">={_supported()[0]}"
    numbers = [int(version.partition(".")[2]) for version in _supported()]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))


def test_what_is_not_the_matrix_runs_on_the_python_of_the_images() -> None:
    base = re.search(r"^ARG PYTHON_IMAGE=\S+:(\d+\.\d+)\.", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    fixed = {
        step["with"]["python-version"]
        for text in TEXTS.values()
        for _, step in steps(read(text))
        if step.get("uses", "").startswith("actions/setup-python@") and "matrix" not in step["with"]["python-version"]
    }
    assert base is not None
    assert fixed == {base[1]}


def _recipe(target: str) -> str:
    """Returns the commands of a target of the Makefile."""
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def test_the_gate_is_the_same_here_as_there() -> None:
    ran = "\n".join(commands(read(TEXTS["ci"])))
    gate = (ROOT / ".ci" / "run").read_text()
    assert re.search(r"set -- check test-all$", gate, re.MULTILINE)
    assert set(re.findall(r"\btest-[a-z]+", _recipe("test-all"))) == {"test-most", "test-beside", "test-alone", "test-results"}
    assert 'pytest -m "not alone"' in _recipe("test-most"), "it has the tests of test and test-slow"
    assert set(re.findall(r"\btest-[a-z]+", _recipe("test-beside"))) == {"test-faults", "test-images", "test-apiserver"}
    # CI builds the images with Docker and needs no container-lab.
    for target in ("check", "test", "test-slow", "test-faults", "test-apiserver"):
        assert f".ci/run {target}\n" in f"{ran}\n"
    assert "make images" in ran


def test_every_image_is_built_scanned_signed_and_named_as_the_chart_has_it() -> None:
    release, ci = read(TEXTS["release"]), read(TEXTS["ci"])
    built = release["jobs"]["image"]["strategy"]["matrix"]["include"]
    assert {one["image"] for one in built} == set(IMAGES)
    for one in built:
        assert f"AS {one['image']}\n" in (ROOT / one["file"]).read_text()
        values = yaml.safe_load((CHART / "charts" / one["image"] / "values.yaml").read_text())
        assert values["image"]["repository"].rpartition("/")[2] == one["image"]
    scanned = [step["with"]["image-ref"] for job, step in steps(ci) if job == "images" and "trivy" in step.get("uses", "")]
    assert scanned == [f"localhost/task-manager/{image}:scanned" for image in IMAGES]
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["name"] == "task-manager"
    assert set(re.findall(r"charts/([\w-]+)@", TEXTS["release"] + TEXTS["deploy"] + (ROOT / ".ci" / "verify-release").read_text())) == {
        "task-manager"
    }


def test_a_version_is_given_last() -> None:
    names = [step.get("name") or step.get("uses", "").partition("@")[0] for job, step in steps(read(TEXTS["release"])) if job == "image"]
    build, scan = names.index("docker/build-push-action"), max(at for at, name in enumerate(names) if name.startswith("scan "))
    assert build < scan < names.index("sign, and only then give it its version")
    (step,) = [step for _, step in steps(read(TEXTS["release"])) if "build-push" in step.get("uses", "")]
    assert "push-by-digest=true" in step["with"]["outputs"]
    assert step["with"]["platforms"] == "linux/amd64,linux/arm64"
    assert (step["with"]["provenance"], step["with"]["sbom"]) == ("mode=max", True)
    assert "tags" not in step["with"]


def test_every_scan_fails_on_what_can_be_mended() -> None:
    scans = [step["with"] for text in TEXTS.values() for _, step in steps(read(text)) if "trivy-action" in step.get("uses", "")]
    assert len(scans) == 5
    assert all((scan["severity"], scan["ignore-unfixed"], scan["exit-code"]) == ("HIGH,CRITICAL", True, "1") for scan in scans)


def test_production_is_deployed_by_digest_and_after_approval() -> None:
    deploy = read(TEXTS["deploy"])
    assert deploy["jobs"]["deploy"]["environment"] == "production"
    assert deploy["jobs"]["deploy"]["needs"] == "verify"
    assert deploy["jobs"]["deploy"]["env"]["CHART"] == "oci://${{ needs.verify.outputs.chart }}"
    assert set(deploy["on"]) == {"workflow_dispatch"}
    # An account that may change only one namespace cannot create one, and Helm would try to create it even if it exists.
    assert "--create-namespace" not in TEXTS["deploy"]


def test_the_cluster_is_that_of_the_script() -> None:
    script = (ROOT / "tests" / "deploy" / "kind" / "run.sh").read_text()
    (kind,) = [step["with"] for _, step in steps(read(TEXTS["ci"])) if "kind-action" in step.get("uses", "")]
    assert f"KIND_CLUSTER:-{kind['cluster_name']}" in script
    ran = "\n".join(commands(read(TEXTS["ci"])))
    everything = re.search(r"set -- ([a-z_ ]+)$", script, re.MULTILINE)
    assert everything is not None
    called = [step for line in re.findall(r"kind/run\.sh ([a-z_ ]+)", ran) for step in line.split()]
    assert called == [*everything[1].split(), "diagnose"]
    for step in called:
        assert re.search(rf"^{step}\(\) {{", script, re.MULTILINE)


def test_what_is_exact_is_kept_new() -> None:
    renovate = json.loads((ROOT / ".github" / "renovate.json").read_text())
    assert set(renovate["enabledManagers"]) >= {"pep621", "github-actions", "dockerfile", "docker-compose", "helm-values", "custom.regex"}
    assert "helpers:pinGitHubActionDigests" in renovate["extends"]
    files = [path for folder in (".ci", ".github") for path in (ROOT / folder).rglob("*") if path.is_file()]
    for manager in renovate["customManagers"]:
        (file,) = manager["managerFilePatterns"]
        paths = [path for path in files if re.search(file.strip("/"), str(path.relative_to(ROOT)))]
        pattern = manager["matchStrings"][0].replace("(?<", "(?P<")
        assert paths
        assert any(re.search(pattern, path.read_text()) for path in paths), manager["description"]
    # Renovate does not recognize a tag that begins with a word as a version.
    (versioning,) = [rule["versioning"].removeprefix("regex:").replace("(?<", "(?P<") for rule in renovate["packageRules"] if "versioning" in rule]
    tag = re.search(r"^ARG ENVOY_IMAGE=\S+/envoy:(\S+)$", (ROOT / "gateway" / "Dockerfile").read_text(), re.MULTILINE)
    assert tag is not None
    assert re.fullmatch(versioning, tag[1])


# ------------------------------------------------------------------------------------------------------------------ planted faults


def _replace(name: str, was: str, becomes: str) -> tuple[str, Callable[[str], str]]:
    def apply(text: str) -> str:
        assert was in text
        return text.replace(was, becomes, 1)

    return name, apply


PLANTED = {
    "a tag for a commit": _replace("ci", "actions/checkout@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2", "actions/checkout@v6"),
    "a pin that says no version": _replace("ci", "e83dd # v6.0.2", "e83dd"),
    "two versions of an action": _replace("ci", "checkout@de0fac2e4500dabe0009e67214ff5f5447ce83dd", f"checkout@{'0' * 40}"),
    "a workflow that is not there": _replace("release", "./.github/workflows/ci.yml", "./.github/workflows/test.yml"),
    "permissions for all": _replace("ci", "permissions: {}", "permissions: write-all"),
    "a job without permissions": _replace("ci", "    permissions:\n      contents: read\n", ""),
    "a job that may write": _replace("ci", "contents: read", "contents: write"),
    "credentials that stay": _replace("ci", "persist-credentials: false", "persist-credentials: true"),
    "a cache for any Python of a minor version": _replace("ci", "${{ steps.python.outputs.python-version }}", "3.13"),
    "a cache by a step that is not there": _replace("ci", "      - id: python\n        uses:", "      - uses:"),
    "no timeout": _replace("deploy", "    timeout-minutes: 30\n", ""),
    "no concurrency group": _replace("deploy", "  group: deploy-production\n", ""),
    "a target that is not there": _replace("ci", "make images", "make image"),
    "a script that is not there": _replace("ci", ".ci/run check", ".ci/check"),
    "a file that is not there": _replace("ci", "tests/deploy/kind/run.sh roll", "tests/deploy/kind/roll.sh"),
    "a module that is not there": _replace("release", "helm.release", "helm.publish"),
    "a password": _replace("deploy", "password: ${{ github.token }}", "password: hunter2"),
    "a key": _replace("deploy", "umask 077", "echo '-----BEGIN OPENSSH PRIVATE KEY-----'"),
    "an input in a command": _replace("deploy", '"$VERSION"', "${{ inputs.version }}"),
    "a shell that forgets failures": _replace("ci", "shell: bash", "shell: sh"),
    "a program among the workflows": _replace("deploy", "umask 077", "umask 077\n" + "          true\n" * 9),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_fault_is_found(planted: str) -> None:
    name, apply = PLANTED[planted]
    assert faults(name, apply(TEXTS[name])) != []
