"""Logged-in clients of the running system, and a place for profiles."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from devstack.stack import Stack
from task_manager_client import AsyncClient, Client, MemoryStore
from tests.support.accounts import PASSWORD

NAME = "Ada"


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
