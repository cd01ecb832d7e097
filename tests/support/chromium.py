"""A headless Chromium that shows one page, and what the page's DOM says: over the DevTools protocol, of which this is all that is needed."""

import asyncio
import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.support.waiting import eventually

PROGRAM: Final = "chromium"
START_SECONDS: Final = 30.0
# As root, in a container, with nothing but the page: no sandbox, no processor of graphics, nobody to talk to by itself.
OPTIONS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)


def missing() -> str:
    """What to say if there is none on this machine; empty if there is."""
    return "" if shutil.which(PROGRAM) else f"{PROGRAM} is not installed: it is the Debian package {PROGRAM}"


class Page:
    """The page."""

    def __init__(self, socket: "aiohttp.ClientWebSocketResponse") -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    async def evaluate(self, expression: str) -> Any:
        """What a JavaScript expression is in the page."""
        number = next(self._numbers)
        await self._socket.send_json(
            {"id": number, "method": "Runtime.evaluate", "params": {"expression": expression, "returnByValue": True, "awaitPromise": True}}
        )
        while True:
            answer = await self._socket.receive_json(timeout=START_SECONDS)
            if answer.get("id") == number:
                return answer["result"]["result"].get("value")


@contextlib.asynccontextmanager
async def showing(url: str) -> AsyncIterator[Page]:
    """A browser of its own with that page, which ends with the block."""
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            *(PROGRAM, *OPTIONS, f"--user-data-dir={profile}", url),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            # The whole family, to be ended together.
            start_new_session=True,
        )
        try:
            port = await eventually(lambda: _port(Path(profile)), within=START_SECONDS)
            async with aiohttp.ClientSession() as session, session.ws_connect(await _address(session, port, url), max_msg_size=0) as socket:
                yield Page(socket)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await process.wait()


async def _port(profile: Path) -> int:
    """The port that the browser has chosen."""
    file = profile / "DevToolsActivePort"
    # The port stands in the first line, and the second makes sure that it does so whole.
    lines = file.read_text().splitlines() if file.exists() else []
    assert len(lines) > 1, "chromium has not started"
    return int(lines[0])


async def _address(session: aiohttp.ClientSession, port: int, url: str) -> str:
    """Of the page's own socket."""

    async def find() -> str:
        async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            pages = [page for page in await answer.json() if page["type"] == "page" and page["url"].startswith(url.partition("#")[0])]
        assert pages
        return str(pages[0]["webSocketDebuggerUrl"])

    return await eventually(find, within=START_SECONDS)
