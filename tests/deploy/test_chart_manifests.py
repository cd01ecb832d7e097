"""manifests/ matches the chart, and kustomize can build it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from helm import manifests
from helm.chart import ROOT, Object
from tests.deploy import restricted, validity
from tests.deploy.rendered import GIVEN, of_kind, pods, title
from tests.support.tools import required

STORES = {"docker.io/library/postgres", "docker.io/valkey/valkey"}
KUSTOMIZE = "go install sigs.k8s.io/kustomize/kustomize/v5@v5.7.1"


def test_nothing_has_drifted() -> None:
    assert manifests.drift() == []


def test_drift_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "manifests"
    shutil.copytree(manifests.FOLDER, folder)
    monkeypatch.setattr(manifests, "FOLDER", folder)
    gateway = folder / "gateway.yaml"
    gateway.write_text(gateway.read_text().replace("maxUnavailable: 0", "maxUnavailable: 1", 1))
    (folder / "redis.yaml").unlink()
    (folder / "extra.yaml").write_text("")
    assert manifests.drift() == ["extra.yaml: is not rendered from the chart", "gateway.yaml: differs from the chart", "redis.yaml: is missing"]
    manifests.write()
    assert manifests.drift() == []


def test_rendering_twice_gives_the_same() -> None:
    assert manifests.rendered() == manifests.rendered()


def test_the_kustomization_names_every_file() -> None:
    kustomization = yaml.safe_load((manifests.FOLDER / "kustomization.yaml").read_text())
    assert sorted(kustomization["resources"]) == sorted({*manifests.rendered(), "namespace.yaml"})


def test_our_images_are_those_that_are_made_here() -> None:
    ours = {image.rpartition(":")[0] for text in manifests.rendered().values() for image in re.findall(r'image: "?([^"\n]+)', text)} - STORES
    assert ours == set(re.findall(r"--tag (localhost/task-manager/[a-z-]+):", (ROOT.parents[1] / "Makefile").read_text()))


def test_the_example_names_every_secret_and_holds_none() -> None:
    lines = [line for line in (manifests.FOLDER / "secrets.env.example").read_text().splitlines() if not line.startswith("#")]
    assert sorted(lines) == sorted(f"{key}=" for key in GIVEN)
    assert "secrets.env" in (manifests.FOLDER / ".gitignore").read_text().splitlines()


def test_kustomize_builds_what_an_api_server_takes(tmp_path: Path) -> None:
    kustomize = required("kustomize", KUSTOMIZE)
    folder = tmp_path / "manifests"
    shutil.copytree(manifests.FOLDER, folder)
    (folder / "secrets.env").write_text("".join(f"{key}={value}\n" for key, value in GIVEN.items()))
    text = subprocess.run([kustomize, "build", str(folder)], capture_output=True, text=True, check=True).stdout
    found: list[Object] = list(yaml.safe_load_all(text))
    assert {title(one): wrong for one in found if (wrong := validity.problems(one))} == {}
    assert [line for _, template in pods(found) for line in restricted.problems(template["spec"])] == []
    (secret,) = of_kind(found, "Secret")
    assert set(secret["data"]) == set(GIVEN)
    assert {container["image"].split("/")[0] for _, template in pods(found) for container in template["spec"]["containers"]} == {
        "localhost",
        "docker.io",
    }
    assert {one["metadata"].get("namespace") for one in found if one["kind"] != "Namespace"} == {"task-manager"}
