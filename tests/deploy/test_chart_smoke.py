"""The script of `helm test` passes on a working system and fails on one that answers wrongly."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from devstack.stack import Stack as System
from helm.chart import ROOT
from tests.deploy.consistency import DESCRIPTORS
from tests.gateway.stack import Gateway, Stack, gateway_behind

SMOKE = ROOT / "files" / "smoke.py"


def _has_watch() -> bool:
    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file
    return any(method.name == "WatchTasks" for file in files for service in file.service for method in service.method)


def _smoke(address: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SMOKE), address], capture_output=True, text=True, timeout=60, check=False)


async def test_the_smoke_test_passes_on_a_system_that_works(system: System) -> None:
    done = _smoke(system.state.url.removeprefix("http://"))
    assert done.returncode == 0, done.stderr
    steps = [line.removeprefix("ok: ") for line in done.stdout.splitlines()]
    watched = ["watched by gRPC", "watched by REST"] if _has_watch() else ["this version has no watch"]
    assert steps == ["ready", "registered and logged in", "made by REST and by gRPC, and read by the other", *watched, "the account is deleted"]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway in front of stubs, which answer every call with an empty message."""
    with Stack.started(tmp_path) as stack, gateway_behind(stack) as running:
        yield running


def test_the_smoke_test_fails_on_a_system_that_answers_something_else(gateway: Gateway) -> None:
    done = _smoke(gateway.url.removeprefix("http://"))
    assert done.returncode == 1
    assert "instead of" in done.stderr
