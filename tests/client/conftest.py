"""Logged-in clients of the running system, a transport with faults, and a place for profiles."""

import asyncio
import io
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

import httpx
import pytest

from devstack.stack import Stack
from task_manager_client import AsyncClient, Client, MemoryStore
from task_manager_client.cli.main import run
from tests.support.accounts import PASSWORD

NAME = "Ada"
REFRESH = "/api/v1/auth/refresh"
UNAVAILABLE, LOST_ANSWER, NO_CONNECTION = "unavailable", "lost answer", "no connection"

Tm = Callable[..., tuple[int, str, str]]


class Forwarding(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Forwards requests to the system, for both clients, and keeps those to the path. Before it forwards one of these, it waits.

    The faults happen to the first of these requests, one to each: the answer is UNAVAILABLE, or it is lost, or there is no connection.
    """

    def __init__(self, *faults: str, path: str = "/", delay_seconds: float = 0) -> None:
        self._blocking, self._awaiting = httpx.HTTPTransport(), httpx.AsyncHTTPTransport()
        self._faults = list(faults)
        self._path = path
        self._delay_seconds = delay_seconds
        self._lock = Lock()
        self.requests: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        fault, wait_seconds = self._meet(request)
        time.sleep(wait_seconds)
        if fault == UNAVAILABLE:
            return httpx.Response(503, json=error_body("DEPENDENCY_UNAVAILABLE"))
        response = self._blocking.handle_request(request)
        if fault == LOST_ANSWER:
            response.close()
            raise httpx.ReadError("reset")
        return response

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        fault, wait_seconds = self._meet(request)
        await asyncio.sleep(wait_seconds)
        if fault == UNAVAILABLE:
            return httpx.Response(503, json=error_body("DEPENDENCY_UNAVAILABLE"))
        response = await self._awaiting.handle_async_request(request)
        if fault == LOST_ANSWER:
            await response.aclose()
            raise httpx.ReadError("reset")
        return response

    def _meet(self, request: httpx.Request) -> tuple[str, float]:
        """Returns the fault of a request, or "", and the wait before it."""
        if self._path not in request.url.path:
            return "", 0
        with self._lock:
            self.requests.append(request)
            fault = self._faults.pop(0) if self._faults else ""
        if fault == NO_CONNECTION:
            raise httpx.ConnectError("refused")
        return fault, self._delay_seconds

    def close(self) -> None:
        self._blocking.close()

    async def aclose(self) -> None:
        await self._awaiting.aclose()


def error_body(reason: str, delay: str = "") -> dict[str, object]:
    """Returns the JSON of an error; `delay` is the wait that the server asks for, such as 1.5s."""
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "metadata": {}}]
    if delay:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retry_delay": delay})
    return {"code": 0, "message": reason, "details": details}


def printed_json(result: tuple[int, str, str]) -> Any:
    """Returns what a command printed with --json, if it succeeded."""
    status, out, err = result
    assert (status, err) == (0, "")
    return json.loads(out)


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The time zone of this process is Europe/Berlin."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def url(system: Stack) -> str:
    return system.state.url


@pytest.fixture
def email() -> str:
    return f"{uuid4().hex}@example.com"


@pytest.fixture
def tokens(url: str, email: str) -> MemoryStore:
    """The tokens of a new account."""
    store = MemoryStore()
    with Client(url, tokens=store) as client:
        client.register(email, PASSWORD, NAME)
        client.login(email, PASSWORD)
    return store


@pytest.fixture
def client(url: str, tokens: MemoryStore) -> Iterator[Client]:
    with Client(url, tokens=tokens) as client:
        yield client


@pytest.fixture
async def async_client(url: str, tokens: MemoryStore) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(url, tokens=tokens) as client:
        yield client


@pytest.fixture
def config(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's configuration folder and environment, for this process and its children."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("TM_URL", url)
    monkeypatch.setenv("TZ", "Europe/Berlin")
    for name in ("TM_TOKEN", "TM_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "task-manager"


@pytest.fixture
def tm(config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Tm]:
    """Runs the command in this process. Returns the exit status, the output and the error output."""
    time.tzset()

    def command(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        status = run(arguments)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    yield command
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def logged_in(tm: Tm, email: str) -> Tm:
    status, _, err = tm("login", "--email", email, "--password-stdin", "--register", "--name", "Ada", stdin=f"{PASSWORD}\n")
    assert (status, err) == (0, "")
    return tm
