"""A command that starts before the database waits for it, and reports an error that waiting cannot repair at once."""

import asyncio
import socket
from urllib.parse import urlsplit

import asyncpg
import pytest
from structlog.testing import capture_logs

from servicekit.stores import wait
from servicekit.stores.wait import wait_for_database
from tests.servicekit.stores.databases import takes, through
from tests.support.ports import free_ports
from tests.support.proxy import proxied


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "PAUSES_SECONDS", (0.05, 0.1))


async def test_it_returns_when_the_database_listens(database_url: str) -> None:
    parts = urlsplit(database_url)
    assert parts.hostname is not None
    assert parts.port is not None
    async with proxied(parts.hostname, parts.port) as proxy:
        await proxy.stop()
        waiting = asyncio.create_task(wait_for_database(through(database_url, proxy.port), 10))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await proxy.start()
        await asyncio.wait_for(waiting, 5)


async def test_it_returns_when_the_name_has_an_address(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, asked = asyncio.get_running_loop(), 0
    resolve = loop.getaddrinfo

    async def resolved(host: str, *args: object, **options: object) -> object:
        nonlocal asked
        asked += 1
        if asked <= 3:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return await resolve("127.0.0.1", *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "getaddrinfo", resolved)
    url = database_url.replace("127.0.0.1", "database.invalid")
    with capture_logs() as logs:
        await wait_for_database(url, 10)
    assert asked > 3
    assert [entry["event"] for entry in logs] == ["database_unreachable"]


async def test_it_raises_the_last_error_at_its_end(database_url: str) -> None:
    (port,) = free_ports(1)
    with takes(0.2, 3), pytest.raises(OSError, match=str(port)):
        await wait_for_database(through(database_url, port), 0.3)


async def test_a_wrong_password_ends_the_wait_at_once(database_url: str) -> None:
    parts = urlsplit(database_url)
    url = parts._replace(netloc=f"nobody:wrong@{parts.hostname}:{parts.port}").geturl()
    with takes(0, 2), pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await wait_for_database(url, 10)
