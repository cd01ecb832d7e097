"""One refresh at a time, across threads, tasks and processes; and what a client does when a refresh fails."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from auth_service.sessions.domain import REFRESH_GRACE_SECONDS
from task_manager_client import AsyncClient, Client, MemoryStore, NotLoggedIn, Overloaded, Retries, Tokens, accounts
from task_manager_client.core import REFRESH_RETRIES, REFRESH_TIMEOUT_SECONDS, Core
from task_manager_client.profiles import Login, Profile
from task_manager_client.steps import Reply, Send, Shielded, Step, Wait
from tests.client.conftest import LOST_ANSWER, REFRESH, Forwarding, error_body
from tests.support.accounts import PASSWORD
from tests.support.proxy import proxied

# Less than core.REFRESH_TIMEOUT_SECONDS, and longer than tm takes to start.
HOLD_SECONDS = 2
TM = Path(sys.executable).with_name("tm")


def _forwarding(*faults: str) -> Forwarding:
    """Returns a transport that waits before it forwards a refresh, so that other tasks and threads have the time to begin one."""
    return Forwarding(*faults, path=REFRESH, delay_seconds=0.2)


def _staled(store: MemoryStore) -> Tokens:
    tokens = store.load()
    assert tokens is not None
    stale = replace(tokens, fresh_until=0)
    store.save(stale)
    return stale


async def test_threads_share_one_refresh(url: str, tokens: MemoryStore) -> None:
    stale, transport = _staled(tokens), _forwarding()
    with Client(url, tokens=tokens, transport=transport) as client, ThreadPoolExecutor(8) as pool:
        users = await asyncio.gather(*(asyncio.get_running_loop().run_in_executor(pool, client.get_me) for _ in range(16)))
    assert len({user.id for user in users}) == 1
    assert len(transport.requests) == 1
    assert tokens.load() not in {None, stale}


async def test_tasks_share_one_refresh(url: str, tokens: MemoryStore) -> None:
    _staled(tokens)
    transport = _forwarding()
    async with AsyncClient(url, tokens=tokens, transport=transport) as client:
        await asyncio.gather(*(client.get_me() for _ in range(16)))
    assert len(transport.requests) == 1


async def test_a_rejected_token_is_refreshed_once_for_all(url: str, tokens: MemoryStore) -> None:
    good = tokens.load()
    assert good is not None
    tokens.save(replace(good, access_token="rejected"))
    transport = _forwarding()
    async with AsyncClient(url, tokens=tokens, transport=transport) as client:
        await asyncio.gather(*(client.create_task("x") for _ in range(8)))
        assert len([task async for task in client.iter_tasks()]) == 8
    assert len(transport.requests) == 1


async def test_a_cancelled_call_does_not_lose_the_refresh(url: str, tokens: MemoryStore) -> None:
    stale, transport = _staled(tokens), _forwarding()
    async with AsyncClient(url, tokens=tokens, transport=transport) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.get_me()
        assert tokens.load() == stale
        await client.get_me()
    assert len(transport.requests) == 1
    assert tokens.load() != stale


async def test_a_client_that_closes_finishes_its_refresh(url: str, tokens: MemoryStore) -> None:
    stale = _staled(tokens)
    with pytest.raises(TimeoutError):
        async with AsyncClient(url, tokens=tokens, transport=_forwarding()) as client, asyncio.timeout(0.1):
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
    transport = _forwarding(LOST_ANSWER)
    with Client(url, tokens=tokens, transport=transport) as client:
        client.get_me()
    assert len(transport.requests) == 2


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


CALLS: list[Callable[[AsyncClient, str], Awaitable[None]]] = [
    lambda client, email: client.login(email, PASSWORD),
    lambda client, _: client.logout(),
    lambda client, _: client.delete_me(PASSWORD),
]


@pytest.mark.parametrize("call", CALLS, ids=["login", "logout", "delete_me"])
async def test_a_call_that_replaces_the_tokens_waits_for_the_lock(
    call: Callable[[AsyncClient, str], Awaitable[None]], async_client: AsyncClient, tokens: MemoryStore, email: str
) -> None:
    before, release = tokens.load(), tokens.try_lock()
    assert release is not None
    calling = asyncio.ensure_future(call(async_client, email))
    done, _ = await asyncio.wait({calling}, timeout=1)
    assert (done, tokens.load()) == (set(), before)
    release()
    await calling
    assert tokens.load() != before
    release = tokens.try_lock()
    assert release is not None
    release()


@pytest.mark.parametrize("stale", [{"fresh_until": 0}, {"access_token": "rejected"}])
async def test_the_deletion_of_an_account_refreshes_its_token(async_client: AsyncClient, tokens: MemoryStore, stale: dict[str, Any]) -> None:
    good = tokens.load()
    assert good is not None
    tokens.save(replace(good, **stale))
    await async_client.delete_me(PASSWORD)
    assert tokens.load() is None


def _refreshing(store: MemoryStore) -> Generator[Step, Any, Tokens]:
    """Returns the steps of a refresh, of which the first is over: it has sent the request."""
    shielded = next(Core(store, Retries()).call(accounts.get_me()))
    assert isinstance(shielded, Shielded)
    assert isinstance(next(shielded.steps), Send)
    return shielded.steps


def _refusal(status: int, reason: str, delay: str = "") -> Reply:
    return Reply(status, {}, json.dumps(error_body(reason, delay)).encode())


REFUSED = _refusal(401, "REFRESH_TOKEN_INVALID")
SUCCEEDED = Reply(200, {}, json.dumps({"access_token": "a2", "token_type": "Bearer", "expires_in": 900, "refresh_token": "r2"}).encode())


@pytest.mark.parametrize("answer", [REFUSED, SUCCEEDED], ids=["refused", "succeeded"])
def test_a_refresh_does_not_replace_a_newer_login(answer: Reply) -> None:
    store, newer = MemoryStore(Tokens("a1", "r1", 0)), Tokens("of another login", "of another login", 0)
    steps = _refreshing(store)
    # By a program that does not use the lock.
    store.save(newer)
    with pytest.raises(StopIteration) as ended:
        steps.send(answer)
    assert ended.value.value == store.load() == newer


@pytest.mark.parametrize("answer", [REFUSED, SUCCEEDED], ids=["refused", "succeeded"])
def test_a_refresh_does_not_undo_a_logout(answer: Reply) -> None:
    store = MemoryStore(Tokens("a1", "r1", 0))
    steps = _refreshing(store)
    store.save(None)
    with pytest.raises(NotLoggedIn):
        steps.send(answer)
    assert store.load() is None


def test_a_refresh_accepts_only_short_waits() -> None:
    steps = _refreshing(MemoryStore(Tokens("a1", "r1", 0)))
    assert isinstance(steps.send(_refusal(429, "OVERLOADED", "1s")), Wait)
    assert isinstance(next(steps), Send)
    with pytest.raises(Overloaded):
        steps.send(_refusal(429, "OVERLOADED", "1.1s"))


def test_the_last_attempt_of_a_refresh_begins_before_its_token_is_void() -> None:
    retries = REFRESH_RETRIES
    longest = REFRESH_TIMEOUT_SECONDS + retries.patience_seconds + retries.most_seconds
    assert (retries.attempts - 1) * longest < REFRESH_GRACE_SECONDS
