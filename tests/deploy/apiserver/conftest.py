"""Tests the chart with a real API server, without nodes, images or a registry. Runs only with the marker `apiserver` (make test-apiserver)."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from tests.deploy import crds
from tests.deploy.apiserver.control_plane import ControlPlane, control_plane
from tests.deploy.apiserver.pods import answered
from tests.deploy.apiserver.releases import Release

HERE: Final = Path(__file__).parent
PROGRAMS: Final = HERE.parents[2] / ".tools" / "bin"

ReleaseFactory: TypeAlias = Callable[[str], Release]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "apiserver: needs the programs that make test-apiserver builds")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if HERE in collection_path.parents and "apiserver" not in config.option.markexpr else None


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with the CRDs and the PriorityClass that the scenarios need. A thread sets pods to ready."""
    with control_plane(PROGRAMS, tmp_path_factory.mktemp("cluster")) as plane, answered(plane.api):
        for kind in crds.SOURCES:
            plane.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", **crds.definition(kind))
        plane.create("/apis/scheduling.k8s.io/v1/priorityclasses", metadata={"name": "production"}, value=1000)
        yield plane


@pytest.fixture
def release_of(cluster: ControlPlane, tmp_path: Path) -> ReleaseFactory:
    """Creates the release of a scenario in its own namespace, without installing it."""
    return lambda scenario: Release(cluster, PROGRAMS / "helm", tmp_path, scenario, f"{scenario}-{secrets.token_hex(4)}")
