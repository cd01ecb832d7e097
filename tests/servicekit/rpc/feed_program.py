"""A service program around `planted.Feed`, whose streams send messages until it drains. test_runtime runs it as a process."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import uvloop
from google.protobuf.message import Message
from taskmanager.task.v1 import task_pb2

from servicekit.errors import DependencyUnavailable
from servicekit.process import app
from servicekit.process.settings import ServiceSettings, load
from servicekit.rpc.call import Call
from servicekit.rpc.metrics import registry
from tests.servicekit.rpc.feeds import Feed, feed_service
from tests.servicekit.rpc.serving import TwoTokens

# The dependency in the error that ends a stream. Any error with the status UNAVAILABLE would be enough.
LAST_WORDS = "this replica's feed"


class DrainedFeed(Feed):
    """A feed whose streams end only when it drains."""

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
    """A drain that fails. The other drains must still run."""
    raise ZeroDivisionError


def parts(_: ServiceSettings) -> app.Parts:
    feed = DrainedFeed()
    return app.Parts(
        handlers=[(feed_service(), [feed])], verifier=TwoTokens(), registry=registry(), resources=[], checks={}, drains=[broken, feed.drain]
    )


if __name__ == "__main__":
    uvloop.run(app.run(load(ServiceSettings), parts))
