"""Receivers of webhooks in the test's process: each verifies what it gets, remembers it, and answers as its seed says."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from devstack.config import HOST

# How an erratic receiver answers, in parts of all requests. The others get 204 at once.
FAILS, ANSWERS_LATE, HANGS, LOSES_ITS_ANSWER = 0.15, 0.10, 0.02, 0.08
LONGEST_LATE_SECONDS: Final = 2.5
# Longer than the sender waits.
HANGS_SECONDS: Final = 20.0


@dataclass(slots=True)
class Arrival:
    """A request, on the clock of time.time. `subject`: the id of the task and its etag. `accepted_at`: when the receiver decided that it has it."""

    at: float
    message_id: str
    subject: tuple[str, str]
    accepted_at: float | None = None


@dataclass(slots=True)
class Receiver:
    """What one webhook gets, in order. `chance` makes it erratic. `least_seconds`: it answers no sooner."""

    path: str
    chance: random.Random | None = None
    least_seconds: float = 0.0
    secret: str = ""
    got: list[Arrival] = field(default_factory=list)
    # Requests without a valid signature.
    forged: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answers a request. An erratic receiver may do what it likes."""
        at, body = time.time(), await request.read()
        try:
            message: Any = Webhook(self.secret).verify(body, dict(request.headers))
        except WebhookVerificationError:
            self.forged += 1
            return web.Response(status=HTTPStatus.BAD_REQUEST)
        task = message["data"]["task"]
        arrival = Arrival(at, request.headers["webhook-id"], (task["id"], task["etag"]))
        self.got.append(arrival)
        await asyncio.sleep(self.least_seconds)
        if self.chance is not None and not await self._accepts(request, self.chance):
            return web.Response(status=HTTPStatus.INTERNAL_SERVER_ERROR)
        arrival.accepted_at = time.time()
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _accepts(self, request: web.Request, chance: random.Random) -> bool:
        drawn, seconds = chance.random(), chance.uniform(0, LONGEST_LATE_SECONDS)
        if drawn < FAILS:
            return False
        if drawn < FAILS + ANSWERS_LATE:
            await asyncio.sleep(seconds)
        elif drawn < FAILS + ANSWERS_LATE + HANGS:
            await asyncio.sleep(HANGS_SECONDS)
        elif drawn < FAILS + ANSWERS_LATE + HANGS + LOSES_ITS_ANSWER and request.transport is not None:
            # It has the message, and the sender does not learn that.
            request.transport.abort()
        return True


@contextlib.asynccontextmanager
async def listening(*receivers: Receiver) -> AsyncIterator[str]:
    """Runs receivers on one port of this machine, and yields the URL before their paths."""
    app = web.Application()
    for receiver in receivers:
        app.router.add_post(receiver.path, receiver.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        yield f"http://{HOST}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
