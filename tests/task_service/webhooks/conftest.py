"""A receiver of webhooks in the test's process, and workers that send to it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from standardwebhooks import Webhook as Verifier

from servicekit.access.seal import Seal
from servicekit.stores.postgres import Database
from task_service.webhooks.domain import Webhook, WebhookFields
from task_service.webhooks.messages import body_of_change, body_of_test
from task_service.webhooks.posting import Poster
from task_service.webhooks.repository import PostgresLeases, PostgresWebhooks
from task_service.webhooks.sending import Sender
from task_service.webhooks.service import WebhookService
from task_service.webhooks.signing import WebhookSeal
from task_service.webhooks.targets import LOOPBACK
from tests.task_service.conftest import new_id

KEY = bytes(range(32))
Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Received:
    """A request: its path, its headers, and its body, as bytes and as JSON."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def message(self) -> Any:
        return json.loads(self.body)


async def accept(_: web.Request) -> web.StreamResponse:
    return web.Response(status=204)


@dataclass
class Receiver:
    """What it got, in order; `answer` decides what it answers, by path."""

    url: str = ""
    got: list[Received] = field(default_factory=list)
    answers: dict[str, Answering] = field(default_factory=dict)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.got.append(Received(request.path, request.headers.copy(), await request.read()))
        return await self.answers.get(request.path, accept)(request)

    def of(self, path: str) -> list[Received]:
        return [each for each in self.got if each.path == path]

    async def count(self, number: int, path: str | None = None, within: float = 10.0) -> None:
        """Waits until it has got that many requests."""
        async with asyncio.timeout(within):
            while len(self.got if path is None else self.of(path)) < number:
                await asyncio.sleep(0.01)


def verified(secret: str, received: Received) -> Any:
    """Returns what the request says, as a receiver with the package of Standard Webhooks reads it. Raises its error if the signature is wrong."""
    return Verifier(secret).verify(received.body, dict(received.headers))


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    app = web.Application(client_max_size=10 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", found.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


def seal_of(*keys: bytes) -> WebhookSeal:
    return WebhookSeal(Seal(keys or (KEY,)))


@pytest.fixture
def service(database: Database) -> WebhookService:
    return WebhookService(PostgresWebhooks(database), seal_of(), new_id)


class Worker:
    """A worker that makes rounds until the test ends."""

    def __init__(self, database: Database) -> None:
        self.figures = CollectorRegistry()
        self.poster = Poster(LOOPBACK)
        self.sender = Sender(PostgresLeases(database), self.poster.post, seal_of(), (body_of_change, body_of_test), new_id, self.figures)
        self._rounds: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.poster.start()
        self._rounds = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            await self.sender.round()
            await self.sender.renew()
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Stops as the process does after SIGTERM."""
        await self._end()
        await self.sender.close()
        await self.poster.close()

    async def kill(self) -> None:
        """Stops at once: what runs is cut off, and nothing is recorded."""
        await self._end()
        for task in list(self.sender._running):
            task.cancel()
        await asyncio.gather(*self.sender._running, return_exceptions=True)
        await self.poster.close()

    async def _end(self) -> None:
        if self._rounds is not None:
            self._rounds.cancel()
            await asyncio.gather(self._rounds, return_exceptions=True)


@pytest.fixture(autouse=True)
async def _nothing_is_due(database: Database) -> None:
    await database.fetchrow("DELETE FROM task.webhooks")


@pytest.fixture
async def worker(database: Database) -> AsyncIterator[Worker]:
    running = Worker(database)
    await running.start()
    yield running
    await running.stop()


async def hook(service: WebhookService, user_id: UUID, url: str, **fields: Any) -> tuple[Webhook, str]:
    """Creates a webhook. Returns it with its secret."""
    written, secret = await service.create_webhook(user_id, WebhookFields(url=url, **fields), None)
    assert written.webhook is not None
    return written.webhook, secret
