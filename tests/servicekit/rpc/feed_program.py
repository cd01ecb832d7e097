"""A service program around `planted.Feed`, whose streams tick until it drains. Run as a process by test_runtime."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import uvloop
from google.protobuf.message import Message
from taskmanager.task.v1 import task_pb2

from servicekit.errors import DependencyUnavailable
from servicekit.process import app
from servicekit.process.settings import ServiceSettings
from servicekit.rpc.call import Call
from servicekit.rpc.metrics import registry
from tests.servicekit.rpc.feeds import Feed, feed_service
from tests.servicekit.rpc.serving import OneToken

# What the feed says as it ends: any error that is UNAVAILABLE would do.
LAST_WORDS = "this replica's feed"


class DrainedFeed(Feed):
    """Streams end when it is told to drain, and not before."""

    def __init__(self) -> None:
        super().__init__()
        self.behaviour = self.until_drained
        self._draining = asyncio.Event()

    async def until_drained(self, _: Any, __: Call) -> AsyncGenerator[Message, None]:
        while not self._draining.is_set():
            yield task_pb2.Task(title="tick")
            await asyncio.sleep(0.02)
        raise DependencyUnavailable(LAST_WORDS)

    async def drain(self) -> None:
        self._draining.set()


async def broken() -> None:
    """A drain that fails, which must keep no other from draining."""
    raise ZeroDivisionError


def parts(_: ServiceSettings) -> app.Parts:
    feed = DrainedFeed()
    return app.Parts(
        handlers=[(feed_service(), [feed])], verifier=OneToken(), registry=registry(), resources=[], checks={}, drains=[broken, feed.drain]
    )


if __name__ == "__main__":
    uvloop.run(app.run(ServiceSettings, parts))
