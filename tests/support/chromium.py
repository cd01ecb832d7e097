"""A headless Chromium that shows one page, and reads the page's DOM and what the page logs over the DevTools protocol."""

import asyncio
import base64
import contextlib
import itertools
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.support.tools import required
from tests.support.waiting import eventually

PROGRAM: Final = "chromium"
START_SECONDS: Final = 30.0
# For root in a container: no sandbox, no GPU, no network traffic except the page's.
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


def require() -> None:
    """Skips the test if Chromium is not installed, or fails it in CI."""
    required(PROGRAM, f"it is the Debian package {PROGRAM}")


class Page:
    """The page. `problems` has the errors and warnings on its console and its uncaught exceptions, as far as a call has received them."""

    def __init__(self, socket: "aiohttp.ClientWebSocketResponse") -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.problems: list[str] = []

    async def evaluate(self, expression: str) -> Any:
        """Returns the value of a JavaScript expression in the page."""
        answer = await self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return answer["result"].get("value")

    async def command(self, method: str, **parameters: Any) -> Any:
        """Runs a command of the DevTools protocol and returns its result."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json(timeout=START_SECONDS)
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    async def collect_problems(self) -> None:
        """Starts to collect problems, including those from before the call."""
        for domain in ("Runtime", "Log"):
            await self.command(f"{domain}.enable")

    async def screenshot(self) -> bytes:
        """Returns a PNG of the visible part of the page."""
        answer = await self.command("Page.captureScreenshot")
        return base64.b64decode(answer["data"])

    def _note(self, event: dict[str, Any]) -> None:
        kind, told = event.get("method"), event.get("params", {})
        if kind == "Runtime.exceptionThrown":
            self.problems.append(str(told["exceptionDetails"]))
        elif kind == "Runtime.consoleAPICalled" and told["type"] in {"error", "warning", "assert"}:
            self.problems.append(str(told["args"]))
        elif kind == "Log.entryAdded" and told["entry"]["level"] in {"error", "warning"}:
            self.problems.append(str(told["entry"]))


@contextlib.asynccontextmanager
async def showing(url: str) -> AsyncIterator[Page]:
    """Starts a browser with that page and stops it at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            *(PROGRAM, *OPTIONS, f"--user-data-dir={profile}", url),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            # A process group of its own, so that all of the browser's processes can be killed together.
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
    """Returns the port that the browser has chosen."""
    file = profile / "DevToolsActivePort"
    # The first line is the port. If there is a second line, the first one is complete.
    lines = file.read_text().splitlines() if file.exists() else []
    assert len(lines) > 1, "chromium has not started"
    return int(lines[0])


async def _address(session: aiohttp.ClientSession, port: int, url: str) -> str:
    """Returns the address of the page's WebSocket."""

    async def find() -> str:
        async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            pages = [page for page in await answer.json() if page["type"] == "page" and page["url"].startswith(url.partition("#")[0])]
        assert pages
        return str(pages[0]["webSocketDebuggerUrl"])

    return await eventually(find, within=START_SECONDS)
