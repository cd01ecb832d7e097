"""One refresh at a time, across threads, tasks and processes; and what a client does when a refresh fails."""

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock

import httpx
import pytest

from task_manager_client import AsyncClient, Client, MemoryStore, NotLoggedIn, Tokens
from task_manager_client.profiles import Login, Profile
from tests.support.proxy import proxied

REFRESH = "/api/v1/auth/refresh"
# Less than core.REFRESH_TIMEOUT_SECONDS, and longer than tm takes to start.
HOLD_SECONDS = 2
TM = Path(sys.executable).with_name("tm")


class Counted(httpx.BaseTransport):
    """Forwards requests and counts the refreshes."""

    def __init__(self) -> None:
        self._real = httpx.HTTPTransport()
        self._lock = Lock()
        self.refreshes = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self.refreshes += request.url.path == REFRESH
        return self._real.handle_request(request)

    def close(self) -> None:
        self._real.close()


class CountedAsync(httpx.AsyncBaseTransport):
    """As Counted, for asyncio. It waits before it forwards a refresh, so that other tasks have the time to begin one."""

    def __init__(self) -> None:
        self._real = httpx.AsyncHTTPTransport()
        self.refreshes = 0
        self.answered = asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path != REFRESH:
            return await self._real.handle_async_request(request)
        self.refreshes += 1
        await asyncio.sleep(0.2)
        response = await self._real.handle_async_request(request)
        self.answered.set()
        return response

    async def aclose(self) -> None:
        await self._real.aclose()


def _staled(store: MemoryStore) -> Tokens:
    tokens = store.load()
    assert tokens is not None
    stale = replace(tokens, fresh_until=0)
    store.save(stale)
    return stale


async def test_threads_share_one_refresh(url: str, tokens: MemoryStore) -> None:
    stale, transport = _staled(tokens), Counted()
    with Client(url, tokens=tokens, transport=transport) as client, ThreadPoolExecutor(8) as pool:
        users = await asyncio.gather(*(asyncio.get_running_loop().run_in_executor(pool, client.get_me) for _ in range(16)))
    assert len({user.id for user in users}) == 1
    assert transport.refreshes == 1
    assert tokens.load() not in {None, stale}


async def test_tasks_share_one_refresh(url: str, tokens: MemoryStore) -> None:
    _staled(tokens)
    transport = CountedAsync()
    async with AsyncClient(url, tokens=tokens, transport=transport) as client:
        await asyncio.gather(*(client.get_me() for _ in range(16)))
    assert transport.refreshes == 1


async def test_a_rejected_token_is_refreshed_once_for_all(url: str, tokens: MemoryStore) -> None:
    good = tokens.load()
    assert good is not None
    tokens.save(replace(good, access_token="rejected"))
    transport = CountedAsync()
    async with AsyncClient(url, tokens=tokens, transport=transport) as client:
        await asyncio.gather(*(client.create_task("x") for _ in range(8)))
        assert len([task async for task in client.iter_tasks()]) == 8
    assert transport.refreshes == 1


async def test_a_cancelled_call_does_not_lose_the_refresh(url: str, tokens: MemoryStore) -> None:
    stale, transport = _staled(tokens), CountedAsync()
    async with AsyncClient(url, tokens=tokens, transport=transport) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.get_me()
        assert tokens.load() == stale
        await client.get_me()
    assert transport.refreshes == 1
    assert tokens.load() != stale


async def test_a_client_that_closes_finishes_its_refresh(url: str, tokens: MemoryStore) -> None:
    stale = _staled(tokens)
    with pytest.raises(TimeoutError):
        async with AsyncClient(url, tokens=tokens, transport=CountedAsync()) as client, asyncio.timeout(0.1):
            await client.get_me()
    assert tokens.load() not in {None, stale}
    release = tokens.try_lock()
    assert release is not None
    release()


async def test_processes_share_one_refresh(url: str, tokens: MemoryStore, email: str, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refreshes = 0

    async def count(data: bytes) -> None:
        """Holds each refresh until the other processes have read the stale tokens, but not until the refresh times out."""
        nonlocal refreshes
        if REFRESH.encode() in data:
            refreshes += 1
            await asyncio.sleep(HOLD_SECONDS)

    async with proxied("127.0.0.1", int(url.rpartition(":")[2])) as proxy:
        proxy.hold = count
        monkeypatch.setenv("TM_URL", f"http://127.0.0.1:{proxy.port}")
        profile = Profile(folder=config)
        profile.begin(Login(os.environ["TM_URL"], email))
        profile.save(_staled(tokens))
        children = [await asyncio.create_subprocess_exec(TM, "whoami", stdout=asyncio.subprocess.PIPE) for _ in range(4)]
        printed = [(await child.communicate())[0].decode() for child in children]
    assert [child.returncode for child in children] == [0] * 4
    assert all(email in out for out in printed)
    assert refreshes == 1


async def test_a_lost_answer_to_a_refresh_keeps_the_session(url: str, tokens: MemoryStore) -> None:
    _staled(tokens)

    class Losing(Counted):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            response = super().handle_request(request)
            if request.url.path == REFRESH and self.refreshes == 1:
                response.close()
                raise httpx.ReadError("reset")
            return response

    transport = Losing()
    with Client(url, tokens=tokens, transport=transport) as client:
        client.get_me()
    assert transport.refreshes == 2


def test_a_session_that_has_ended_is_forgotten(url: str, tokens: MemoryStore) -> None:
    stale = _staled(tokens)
    with Client(url, tokens=MemoryStore(replace(stale, fresh_until=float("inf")))) as other:
        other.logout()
    with Client(url, tokens=tokens) as client, pytest.raises(NotLoggedIn, match="the session has ended"):
        client.get_me()
    assert tokens.load() is None


def test_a_failed_refresh_releases_the_lock(url: str, tokens: MemoryStore) -> None:
    _staled(tokens)
    unavailable = httpx.MockTransport(lambda _: httpx.Response(503))
    with Client(url, tokens=tokens, transport=unavailable) as client, pytest.raises(Exception, match="503"):
        client.get_me()
    release = tokens.try_lock()
    assert release is not None
    release()
