"""hadolint finds nothing in the Dockerfiles, and all versions that they install are exact and hashed."""

import re
import sys
import tomllib
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = ("Dockerfile", "gateway/Dockerfile")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
WANTED: dict[str, list[str]] = {
    "services.txt": PROJECT["project"]["dependencies"],
    "gateway.txt": PROJECT["dependency-groups"]["gateway"],
    "build.txt": PROJECT["build-system"]["requires"],
}


@pytest.mark.parametrize("file", DOCKERFILES)
def test_hadolint_finds_nothing(file: str) -> None:
    ended = run([Path(sys.executable).with_name("hadolint"), file], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "hadolint ignore" not in (ROOT / file).read_text()


@pytest.mark.parametrize("file", DOCKERFILES)
def test_bases_are_exact_and_the_same(file: str) -> None:
    text = (ROOT / file).read_text()
    bases = dict(re.findall(r"^ARG (\w+_IMAGE)=(\S+)$", text, re.MULTILINE))
    assert all(re.search(r":(distroless-)?v?\d+\.\d+\.\d+(-[a-z-]+)?(@sha256:[0-9a-f]{64})?$", base) for base in bases.values())
    stages = re.findall(r"AS ([\w-]+)$", text, re.MULTILINE)
    for base in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
        assert base in stages or base.strip("${}") in bases
    assert bases["PYTHON_IMAGE"] in (ROOT / "Dockerfile").read_text()


def test_the_gateways_image_is_the_envoy_image_without_a_shell() -> None:
    text = (ROOT / "gateway" / "Dockerfile").read_text()
    last = text.rpartition("\nFROM ")[2]
    assert last.startswith("${ENVOY_IMAGE} AS gateway\n")
    assert "\nARG ENVOY_IMAGE=docker.io/envoyproxy/envoy:distroless-" in text
    # The image has no shell, so a RUN in shell form would fail.
    assert re.findall(r"^RUN (?!\[)", last, re.MULTILINE) == []


def test_both_build_the_same_wheel() -> None:
    stages = [re.search(r"AS build\n(.*?)\n(?:\n|$)", (ROOT / file).read_text(), re.DOTALL) for file in DOCKERFILES]
    # Without comments, because only one of the files explains the stage.
    assert len({re.sub(r"^#.*\n", "", stage[1], flags=re.MULTILINE) for stage in stages if stage}) == 1
    assert all(stages)


@pytest.mark.parametrize("name", WANTED)
def test_constraints_are_exact_hashed_and_what_the_project_asks_for(name: str) -> None:
    text = (ROOT / "constraints" / name).read_text()
    assert "://" not in text
    assert "--index" not in text
    pins = re.findall(r"^([a-z0-9-]+)==(\S+)(?: ; .*?)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE)
    assert len(pins) == len(re.findall(r"^[a-z0-9]", text, re.MULTILINE))
    versions = {package: version for package, version, _ in pins}
    for line in WANTED[name]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(versions[requirement.name], prereleases=True), f"{line}: run `make constraints`"


def test_the_gateway_has_the_versions_of_the_services() -> None:
    services, gateway = (
        dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "constraints" / name).read_text(), re.MULTILINE)) for name in WANTED if name != "build.txt"
    )
    assert {package: version for package, version in gateway.items() if services.get(package, version) != version} == {}
