"""Runs docs/integrations.md: its commands as they are written, and its receivers of webhooks, to which the running system sends."""

import asyncio
import os
import re
import shutil
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

import httpx
import pytest
from standardwebhooks import Webhook as Signer

from devstack.stack import Stack
from tests.support.accounts import make_account
from tests.support.ports import free_ports
from tests.support.tools import required
from tests.support.tour import ROOT, Tour
from tests.support.waiting import eventually

DOCUMENT: Final = "docs/integrations.md"
TOUR: Final = Tour(DOCUMENT, {})
TIMEOUT_SECONDS: Final = 120
WITHIN_SECONDS: Final = 20
# For each language: the name of the program, and what runs it.
RECEIVERS: Final = {"python": ("receiver.py", sys.executable), "js": ("receiver.mjs", "node")}
PING: Final = '{"type":"ping","timestamp":"2027-01-01T00:00:00Z","data":{}}'
SECRET: Final = f"whsec_{'A' * 43}="
OTHER_SECRET: Final = f"whsec_{'B' * 42}A="


@pytest.fixture(scope="module")
async def printed(system: Stack, tmp_path_factory: pytest.TempPathFactory) -> Mapping[int, str]:
    environment = {"XDG_CONFIG_HOME": str(tmp_path_factory.mktemp("config"))}
    return await TOUR.printed(system.state.url, timeout_seconds=TIMEOUT_SECONDS, environment=environment)


@pytest.mark.parametrize("number", range(len(TOUR.blocks)), ids=TOUR.ids)
def test_a_block_prints_what_stands_under_it(number: int, printed: Mapping[int, str]) -> None:
    TOUR.check(number, printed)


@dataclass(frozen=True, slots=True)
class Receiver:
    """A receiver that runs, and what it has printed."""

    client: httpx.AsyncClient
    output: Path

    async def post(self, headers: Mapping[str, str], body: str = PING) -> int:
        """Returns the status of the answer."""
        return (await self.client.post("/hook", content=body, headers=headers)).status_code

    def announce(self, length: int) -> int:
        """Sends the headers of a request with a body of that length. Returns the status of the answer."""
        connection = HTTPConnection(self.client.base_url.host, self.client.base_url.port, timeout=WITHIN_SECONDS)
        connection.putrequest("POST", "/hook")
        connection.putheader("content-length", str(length))
        connection.endheaders()
        with closing(connection), connection.getresponse() as response:
            return response.status

    async def prints(self, *lines: str) -> None:
        """Waits until it has printed these lines, and no others."""

        async def has_printed() -> None:
            assert [line.rstrip() for line in self.output.read_text(encoding="utf-8").splitlines()] == list(lines)

        await eventually(has_printed, within=WITHIN_SECONDS)


def signed(message_id: str, *, secret: str = SECRET, away: timedelta = timedelta()) -> dict[str, str]:
    """Returns the headers of a ping that was sent that long after now."""
    at = datetime.now(UTC) + away
    return {"webhook-id": message_id, "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": Signer(secret).sign(message_id, at, PING)}


@asynccontextmanager
async def running(language: str, folder: Path, port: int, secret: str = SECRET) -> AsyncIterator[Receiver]:
    """Runs the receiver of the document in that language."""
    (program,) = re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / DOCUMENT).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    name, runner = RECEIVERS[language]
    (folder / name).write_text(program, encoding="utf-8")
    environment = {**os.environ, "PORT": str(port), "WEBHOOK_SECRET": secret}
    with (folder / "output").open("a") as output, (folder / "errors").open("a") as errors:
        process = await asyncio.create_subprocess_exec(
            *(shutil.which(runner) or runner, name), cwd=folder, env=environment, stdout=output, stderr=errors
        )

    async def listens() -> None:
        assert process.returncode is None, (folder / "errors").read_text(encoding="utf-8")
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        await eventually(listens, within=WITHIN_SECONDS)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            yield Receiver(client, folder / "output")
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.fixture(params=RECEIVERS)
def language(request: pytest.FixtureRequest) -> str:
    language: str = request.param
    if language == "js":
        required("node", "https://nodejs.org")
    return language


async def test_a_receiver_gets_what_changes_in_the_order_of_the_changes(rest: httpx.AsyncClient, language: str, tmp_path: Path) -> None:
    headers, (port,) = (await make_account(rest)).headers, free_ports(1)
    created = (await rest.post("/api/v1/webhooks", json={"url": f"http://127.0.0.1:{port}/hook"}, headers=headers)).json()
    webhook = f"/api/v1/webhooks/{created['webhook']['id']}"
    async with running(language, tmp_path, port, created["secret"]) as receiver:
        task = (await rest.post("/api/v1/tasks", json={"title": "Größe 📏"}, headers=headers)).json()
        await rest.patch(f"/api/v1/tasks/{task['id']}", json={"status": "COMPLETED"}, headers=headers)
        await rest.post("/api/v1/projects", json={"name": "Home"}, headers=headers)
        # From now on requests have two signatures, and the receiver knows the secret of the second one.
        await rest.post(f"{webhook}:rotateSecret", json={}, headers=headers)
        await rest.delete(f"/api/v1/tasks/{task['id']}", headers=headers)
        await receiver.prints("task.created Größe 📏", "task.completed Größe 📏", "project.created Home", "task.deleted Größe 📏")
        # Another rotation ends the time of the secret that the receiver knows.
        await rest.post(f"{webhook}:rotateSecret", json={}, headers=headers)
        tested = (await rest.post(f"{webhook}:test", json={}, headers=headers)).json()
        assert (tested["succeeded"], tested["http_status"]) == (False, 400)


async def test_a_receiver_handles_a_message_that_comes_again_once(language: str, tmp_path: Path) -> None:
    async with running(language, tmp_path, *free_ports(1)) as receiver:
        for message_id in ("msg_1", "msg_1", "msg_2", "msg_1"):
            assert await receiver.post(signed(message_id)) == 204
        await receiver.prints("ping", "ping")


async def test_a_receiver_refuses_what_the_server_has_not_just_signed(language: str, tmp_path: Path) -> None:
    right = signed("msg_1")
    forged: dict[str, dict[str, str]] = {
        "other secret": signed("msg_1", secret=OTHER_SECRET),
        "old": signed("msg_1", away=timedelta(minutes=-6)),
        "from the future": signed("msg_1", away=timedelta(minutes=6)),
        "other id": {**right, "webhook-id": "msg_2"},
        "no signature": {name: value for name, value in right.items() if name != "webhook-signature"},
        "no headers": {},
        "no number": {**right, "webhook-timestamp": "now"},
        "short": {**right, "webhook-signature": "v1,AAAA"},
        "malformed": {**right, "webhook-signature": "v1"},
        "other version": {**right, "webhook-signature": right["webhook-signature"].replace("v1", "v2")},
    }
    async with running(language, tmp_path, *free_ports(1)) as receiver:
        assert {name: await receiver.post(headers) for name, headers in forged.items()} == dict.fromkeys(forged, 400)
        assert await receiver.post(right, PING + " ") == 400
        assert await asyncio.to_thread(receiver.announce, 1024 * 1024 + 1) == 413
        assert await receiver.post(right) == 204
        await receiver.prints("ping")


async def test_the_receiver_with_a_table_knows_after_a_restart_what_it_has_handled(tmp_path: Path) -> None:
    first, second = free_ports(2)

    async def all_is_done() -> None:
        with closing(sqlite3.connect(tmp_path / "inbox.db")) as inbox:
            assert inbox.execute("SELECT count(*), sum(done) FROM inbox").fetchone() == (2, 2)

    async with running("python", tmp_path, first) as receiver:
        assert [await receiver.post(signed(message_id)) for message_id in ("msg_1", "msg_2")] == [204, 204]
        await eventually(all_is_done, within=WITHIN_SECONDS)
    async with running("python", tmp_path, second) as receiver:
        assert [await receiver.post(signed(message_id)) for message_id in ("msg_2", "msg_3")] == [204, 204]
        await receiver.prints("ping", "ping", "ping")
