"""Builds and runs the images with container-lab, which needs no container engine and no registry. Slow: runs only with the marker `images`.

container-lab is not part of this repository: CONTAINER_LAB is its path, by default ../shared/tools/container-lab. It builds local stand-ins for the
base images, under the names in the Dockerfiles. So the tests cover the Dockerfiles completely, but not the contents of the real base images. Its
Envoy image is a complete Debian; envoy.Containerfile removes what the real, distroless image does not have.
"""

import os
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc.aio
import httpx
import pytest

from devstack.config import StackConfig
from devstack.stack import Stack
from tests.deploy.images.containers import IMAGES, ROOT, Containers, bases
from tests.support import tiers
from tests.support.accounts import Account, make_account
from tests.support.clients import channel_of, rest_of
from tests.support.tools import missing

HERE = Path(__file__).parent
# The first test waits for the base images, on a new machine, and for the builds.
LIMIT_SECONDS = 2400
# Long enough for the gateway's health checks to notice that a replica drains.
DRAIN_DELAY_SECONDS = 1.5


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "images: builds and runs the images")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if HERE in collection_path.parents and "images" not in config.option.markexpr else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tiers.may_take(items, HERE, LIMIT_SECONDS)


@pytest.fixture(scope="session")
def lab() -> Path:
    """The path of container-lab."""
    path = Path(os.environ.get("CONTAINER_LAB") or ROOT.parent / "shared" / "tools" / "container-lab").resolve()
    if not path.exists():
        missing("container-lab", "name it by CONTAINER_LAB")
    assert os.geteuid() == 0, "container-lab needs root"
    return path


@pytest.fixture(scope="session")
def containers(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """Builds the three images. At the end it removes all containers that still run."""
    _make_bases(lab)
    containers = Containers(lab, uuid.uuid4().hex[:8], tmp_path_factory.mktemp("containers"))
    for image in IMAGES.values():
        containers.build(image, ROOT)
    yield containers
    containers.remove_all()


def _make_bases(lab: Path) -> None:
    """Builds the stand-ins for the base images of the Dockerfiles."""
    for kind, base in bases().items():
        made = "localhost/envoy" if kind == "ENVOY" else base
        podman = shutil.which("podman")
        if podman is None or subprocess.run([podman, "image", "exists", made], check=False).returncode:
            subprocess.run([lab, "envoy" if kind == "ENVOY" else "base", made], check=True, timeout=900)
        if kind == "ENVOY":
            options = ["--file", HERE / "envoy.Containerfile", "--build-arg", f"FULL={made}", "--layers"]
            subprocess.run([lab, "build", base, HERE, *options], check=True, timeout=300)


@pytest.fixture(scope="session")
async def system(containers: Containers) -> AsyncIterator[Stack]:
    """The system with real stores, and our programs in containers: one auth_service, two replicas of task_service, and the gateway."""
    commands = {program: containers.command(image) for program, image in IMAGES.items()}
    commands["gateway"] += ("run",)  # the stack adds the arguments of the services' commands itself
    environment = {"BCRYPT_COST": "8", "DRAIN_DELAY_SECONDS": str(DRAIN_DELAY_SECONDS)}
    config = StackConfig(commands=commands, task_replicas=2, environment=environment, drain_delay_seconds=DRAIN_DELAY_SECONDS)
    async with Stack(config) as stack:
        yield stack


@pytest.fixture
async def rest(system: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """REST, through the gateway's container."""
    async with rest_of(system) as client:
        yield client


@pytest.fixture
async def gateway_channel(system: Stack) -> AsyncIterator[grpc.aio.Channel]:
    """gRPC, through the gateway's container."""
    async with channel_of(system) as channel:
        yield channel


@pytest.fixture
async def account(rest: httpx.AsyncClient) -> Account:
    """A user who is logged in."""
    return await make_account(rest)
