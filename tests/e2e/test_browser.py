"""Server-sent events in a real browser: a page of another origin reads changes with fetch, because EventSource cannot send the token's header."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from aiohttp import web

from devstack.config import HOST, StackConfig
from devstack.stack import Stack
from tests.support import chromium
from tests.support.accounts import Account, make_account
from tests.support.ports import free_ports
from tests.support.waiting import eventually
from tests.support.writes import writes

pytestmark = pytest.mark.slow("it starts a system of its own, and Chromium")

PAGE = Path(__file__).with_name("watching.html")
WITHIN_SECONDS = 20.0
CHANGES = "[...document.querySelectorAll('#changes li')].map((item) => item.textContent)"
STATUS = "document.querySelector('#status')?.textContent ?? ''"


@pytest.fixture(scope="module")
def origin() -> str:
    """The page's origin, the only one that the gateway allows."""
    chromium.require()
    return f"http://{HOST}:{free_ports(1)[0]}"


@pytest.fixture(scope="module")
async def stack(origin: str) -> AsyncIterator[Stack]:
    async with Stack(StackConfig(environment={"BCRYPT_COST": "4", "CORS_ALLOWED_ORIGINS": origin})) as running:
        yield running


@contextlib.asynccontextmanager
async def _shown(origin: str, stack: Stack, account: Account) -> AsyncIterator[chromium.Page]:
    """Serves the page at the origin and opens it in a browser. The URL fragment, which is never sent, has the gateway's URL and the token."""

    async def page_of_ours(_: web.Request) -> web.FileResponse:
        return web.FileResponse(PAGE)

    application = web.Application()
    application.router.add_get("/", page_of_ours)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, HOST, int(origin.rpartition(":")[2])).start()
    try:
        async with chromium.showing(f"{origin}/#{quote(json.dumps([stack.state.url, account.access_token]))}") as page:
            yield page
    finally:
        await runner.cleanup()


async def test_a_page_of_another_origin_shows_changes_as_they_come(origin: str, stack: Stack, client: httpx.AsyncClient) -> None:
    account = await make_account(client)
    write = writes(client, account)
    async with _shown(origin, stack, account) as page:

        async def follows() -> None:
            assert await page.evaluate(STATUS) == "text/event-stream, request known"

        async def shows(changes: Sequence[str]) -> None:
            assert await page.evaluate(CHANGES) == changes

        await eventually(follows, within=WITHIN_SECONDS)
        task = await write("CreateTask", {"task": {"title": "From elsewhere ☂"}})
        await write("UpdateTask", {"task": {"id": task["id"], "title": "Changed"}})
        await write("DeleteTask", {"id": task["id"]})
        changes = ["CREATED From elsewhere ☂", "UPDATED Changed", "DELETED Changed"]
        await eventually(lambda: shows(changes), within=WITHIN_SECONDS)
        # After the gateway's restart the page resumes where it was.
        await stack.kill("gateway")
        await stack.start_process("gateway")
        await write("UndeleteTask", {"id": task["id"]})
        await eventually(lambda: shows([*changes, "RESTORED Changed"]), within=WITHIN_SECONDS)
        # The page can read the error although it comes from another origin.
        assert (await client.post("/api/v1/auth/logout", json={"refresh_token": account.refresh_token})).is_success

        async def refused() -> None:
            assert '"reason":"TOKEN_INVALID"' in await page.evaluate(STATUS)

        await eventually(refused, within=WITHIN_SECONDS)
        await asyncio.sleep(0.2)
        await shows([*changes, "RESTORED Changed"])


async def test_a_page_of_an_origin_that_is_not_let_in_sees_nothing(origin: str, stack: Stack, client: httpx.AsyncClient) -> None:
    account = await make_account(client)
    stranger = f"http://{HOST}:{free_ports(1)[0]}"
    async with _shown(stranger, stack, account) as page:

        async def fails() -> None:
            assert "TypeError" in await page.evaluate(STATUS)

        await eventually(fails, within=WITHIN_SECONDS)
        assert await page.evaluate(CHANGES) == []
