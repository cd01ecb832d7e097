"""The client of auth_service's events, against the running service."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from devstack.stack import Stack
from servicekit.access.revocations import EventKind
from servicekit.errors import DependencyUnavailable
from task_service.accounts.auth_events import AuthEvents
from tests.conftest import AccountFactory
from tests.contract.insider import secrets_of
from tests.support.proxy import Proxy, proxied


@pytest.fixture
async def proxy(system: Stack) -> AsyncIterator[Proxy]:
    async with proxied("127.0.0.1", system.state.processes["auth-1"].grpc_port or 0) as proxy:
        yield proxy


@pytest.fixture
async def events(system: Stack, proxy: Proxy) -> AsyncIterator[AuthEvents]:
    events = AuthEvents(f"127.0.0.1:{proxy.port}", secrets_of(system.state).service_token)
    await events.start()
    yield events
    await events.close()


async def test_a_connection_that_died_without_a_word_costs_less_than_a_second(events: AuthEvents, proxy: Proxy) -> None:
    """This time and the 1 s between two polls must be less than the 2 s within which a revocation takes effect."""
    await events.list_events(after=0)
    # The shortest of a few, because a stall of the machine makes one of them late.
    took: list[float] = []
    while not took or (len(took) < 5 and min(took) >= 0.9):
        proxy.lose()
        began = time.monotonic()
        both = await asyncio.gather(events.list_events(after=0), events.list_events(after=0, kind=EventKind.USER_DELETED))
        took.append(time.monotonic() - began)
        assert all(page.last_number >= 0 for page in both)
    assert min(took) < 0.9, took


async def test_a_service_that_returns_is_found_again(events: AuthEvents, proxy: Proxy) -> None:
    await events.list_events(after=0)
    await proxy.stop()
    with pytest.raises(DependencyUnavailable):
        await events.list_events(after=0)
    await proxy.start()
    async with asyncio.timeout(5):
        while True:
            try:
                await events.list_events(after=0)
            except DependencyUnavailable:
                continue
            return


async def test_a_wrong_service_token_is_no_way_in(system: Stack, proxy: Proxy, new_account: AccountFactory) -> None:
    account = await new_account()
    events = AuthEvents(f"127.0.0.1:{proxy.port}", account.access_token)
    await events.start()
    with pytest.raises(DependencyUnavailable):
        await events.list_events(after=0)
    await events.close()


async def test_a_service_that_hangs_is_left_with_few_connections(events: AuthEvents, proxy: Proxy) -> None:
    await events.list_events(after=0)
    proxy.freeze()
    for _ in range(4):
        with pytest.raises(DependencyUnavailable):
            await events.list_events(after=0)
    # The first channel, the one that replaced it, and what gRPC itself tries.
    assert proxy.accepted <= 4
    proxy.thaw()
    async with asyncio.timeout(5):
        while True:
            with contextlib.suppress(DependencyUnavailable):
                await events.list_events(after=0)
                return
