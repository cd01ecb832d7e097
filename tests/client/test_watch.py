"""Watching: every change once and in order, whatever happens to the connection and the token."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

import task_manager_client as tm
from task_manager_client import AsyncClient, ChangeKind, Client, MemoryStore, Retries
from task_manager_client.core import REFRESH_RETRIES
from tests.client.conftest import REFRESH, UNAVAILABLE, Forwarding
from tests.support.proxy import Proxy, proxied

QUICK = Retries(first_seconds=0.01, most_seconds=0.05)
WITHIN_SECONDS = 20


@pytest.fixture
async def proxy(url: str) -> AsyncIterator[Proxy]:
    async with proxied("127.0.0.1", int(url.rpartition(":")[2])) as proxy:
        yield proxy


def test_the_changes_after_a_list(client: Client) -> None:
    client.create_task("before")
    page = client.list_tasks()
    made = client.create_task("after")
    client.update_task(made.id, title="changed")
    client.delete_task(made.id)
    client.undelete_task(made.id)
    changes = list(itertools.islice(client.watch(page.resume_token), 4))
    assert [change.kind for change in changes] == [ChangeKind.CREATED, ChangeKind.UPDATED, ChangeKind.DELETED, ChangeKind.RESTORED]
    assert [change.task.title for change in changes if change.task] == ["after", "changed", "changed", "changed"]
    (again,) = itertools.islice(client.watch(changes[2].resume_token), 1)
    assert (again.kind, again.task) == (changes[3].kind, changes[3].task)


def test_checkpoints_are_optional(client: Client) -> None:
    (first,) = itertools.islice(client.watch(checkpoints=True), 1)
    assert (first.kind, first.task) == (ChangeKind.CHECKPOINT, None)


async def test_lost_connections_lose_no_change(async_client: AsyncClient, proxy: Proxy, tokens: MemoryStore) -> None:
    titles = [f"task {number}" for number in range(30)]
    start = (await async_client.list_tasks()).resume_token

    async def write() -> None:
        for number, title in enumerate(titles):
            await async_client.create_task(title)
            if number % 6 == 5:
                await proxy.cut()

    async with AsyncClient(f"http://127.0.0.1:{proxy.port}", tokens=tokens, retries=QUICK) as watcher, asyncio.timeout(WITHIN_SECONDS):
        writing = asyncio.create_task(write())
        seen = []
        async for change in watcher.watch(start):
            assert change.task is not None
            seen.append(change.task.title)
            if len(seen) == len(titles):
                break
        await writing
    assert seen == titles
    assert proxy.accepted > 3


async def test_an_outage_longer_than_the_retries_does_not_end_a_stream(async_client: AsyncClient, proxy: Proxy, tokens: MemoryStore) -> None:
    async with AsyncClient(f"http://127.0.0.1:{proxy.port}", tokens=tokens, retries=QUICK) as watcher, asyncio.timeout(WITHIN_SECONDS):
        changes = watcher.watch(checkpoints=True)
        await anext(changes)
        await proxy.stop()
        await async_client.create_task("meanwhile")
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(1)
        assert not waiting.done()
        await proxy.start()
        change = await waiting
        while change.task is None:
            change = await anext(changes)
        assert change.task.title == "meanwhile"
        await changes.aclose()


async def test_a_stream_that_never_opened_fails(tokens: MemoryStore) -> None:
    async with AsyncClient("http://127.0.0.1:9", tokens=tokens, retries=QUICK) as watcher:
        with pytest.raises(tm.NotConnected):
            await anext(watcher.watch())


async def test_a_stream_refreshes_its_token(async_client: AsyncClient, tokens: MemoryStore, proxy: Proxy) -> None:
    async with AsyncClient(f"http://127.0.0.1:{proxy.port}", tokens=tokens, retries=QUICK) as watcher, asyncio.timeout(WITHIN_SECONDS):
        changes = watcher.watch(checkpoints=True)
        await anext(changes)
        before = tokens.load()
        assert before is not None
        tokens.save(replace(before, access_token="expired"))
        await proxy.cut()
        assert (await anext(changes)).kind is ChangeKind.CHECKPOINT
        after = tokens.load()
        assert after is not None
        assert after.refresh_token != before.refresh_token
        await changes.aclose()


# One refresh fails, and its successor succeeds after one more failure.
OUTAGE = [UNAVAILABLE] * (REFRESH_RETRIES.attempts + 1)


async def test_a_refresh_that_fails_does_not_end_a_stream(async_client: AsyncClient, tokens: MemoryStore, proxy: Proxy) -> None:
    transport = Forwarding(*OUTAGE, path=REFRESH)
    url = f"http://127.0.0.1:{proxy.port}"
    async with AsyncClient(url, tokens=tokens, retries=QUICK, transport=transport) as watcher, asyncio.timeout(WITHIN_SECONDS):
        changes = watcher.watch(checkpoints=True)
        await anext(changes)
        before = tokens.load()
        assert before is not None
        tokens.save(replace(before, access_token="expired"))
        await proxy.cut()
        assert (await anext(changes)).kind is ChangeKind.CHECKPOINT
        await changes.aclose()
    assert len(transport.requests) == len(OUTAGE) + 1


def test_a_refresh_that_fails_does_not_end_a_blocking_stream(url: str, tokens: MemoryStore) -> None:
    before, transport = tokens.load(), Forwarding(*OUTAGE, path=REFRESH)
    assert before is not None
    tokens.save(replace(before, fresh_until=0))
    with Client(url, tokens=tokens, retries=QUICK, transport=transport) as watcher:
        (first,) = itertools.islice(watcher.watch(checkpoints=True), 1)
    assert first.kind is ChangeKind.CHECKPOINT
    assert len(transport.requests) == len(OUTAGE) + 1


async def test_an_ended_session_ends_the_stream(async_client: AsyncClient) -> None:
    changes = async_client.watch(checkpoints=True)
    await anext(changes)
    await async_client.logout()
    with pytest.raises(tm.NotLoggedIn):
        async with asyncio.timeout(WITHIN_SECONDS):
            await anext(changes)


async def test_wrong_resume_tokens(async_client: AsyncClient) -> None:
    with pytest.raises(tm.InvalidResumeToken):
        await anext(async_client.watch("x"))
