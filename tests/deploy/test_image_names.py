"""No name of our images leads to somebody else's: what is built here has the registry `localhost`, and a release has its repository's."""

import re
from typing import Final

import yaml

from tests.deploy.rendered import SCENARIOS, objects, pods
from tests.deploy.workflows import ROOT

NAMES: Final = ("auth-service", "task-service", "gateway")
# A name without a host is Docker Hub's, where anybody may own it.
OURS: Final = re.compile(r"(?<![\w./-])(?:[\w.-]+/)*task-manager/(?:auth-service|task-service|gateway)\b")


def test_the_charts_images_are_of_no_registry() -> None:
    images = {
        container["image"]
        for scenario in SCENARIOS
        for _, template in pods(objects(scenario))
        for container in template["spec"].get("initContainers", []) + template["spec"]["containers"]
    }
    ours = {image for image in images if image.endswith(NAMES) or any(f"/{name}" in image for name in NAMES)}
    assert {image.partition("/")[0] for image in ours} == {"localhost"}
    # Everything else names its registry, so that no engine completes a name.
    assert all("." in image.partition("/")[0] for image in images - ours)


def test_compose_builds_our_images_and_never_pulls_them() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    ours = {name: one for name, one in services.items() if "task-manager/" in one["image"]}
    assert len(ours) == 6
    for name, one in ours.items():
        assert one["image"].startswith("localhost/task-manager/"), name
        assert one["pull_policy"] == ("build" if "build" in one else "never"), name
    assert all("." in one["image"].partition("/")[0] for name, one in services.items() if name not in ours)


def test_no_text_names_an_image_without_its_registry() -> None:
    files = ["Makefile", "docker-compose.yml", *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("**/*.md")) if ".venv" not in path.parts)]
    files += [
        str(path.relative_to(ROOT))
        for folder in ("helm", "manifests", ".github", "tests/deploy/kind")
        for path in sorted((ROOT / folder).rglob("*.y*ml"))
    ]
    wrong = {(file, found) for file in files for found in OURS.findall((ROOT / file).read_text()) if not found.startswith("localhost/")}
    assert wrong == set()


def test_a_release_is_named_by_its_repository() -> None:
    release, deploy, verify = (
        (ROOT / file).read_text() for file in (".github/workflows/release.yml", ".github/workflows/deploy.yml", ".ci/verify-release")
    )
    assert "registry=ghcr.io/${REPOSITORY,,}" in release
    assert "registry=ghcr.io/$(tr '[:upper:]' '[:lower:]' <<<\"$repository\")" in verify
    # What is deployed is what was verified, by the reference that the verification prints.
    assert "oci://${{ needs.verify.outputs.chart }}" in deploy
    assert "ghcr.io/${{" not in deploy
