"""The stop of a process that has running streams."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc.aio

from servicekit.process.runtime import CLOSE_TIMEOUT_SECONDS
from tests.servicekit.rpc.feed_program import LAST_WORDS
from tests.servicekit.rpc.feeds import read_all, watch

DRAIN_DELAY_SECONDS = 1.0
GRACE_SECONDS = 30.0
STREAMS = 20
SETTINGS = {
    "ENVIRONMENT": "development",
    "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "SERVICE_TOKEN": "x" * 32,
    "BIND_HOST": "127.0.0.1",
    "GRPC_PORT": "0",
    "OPS_PORT": "0",
    "OTEL_SERVICE_NAME": "feed",
    "REFLECTION_ENABLED": "false",
    "DRAIN_DELAY_SECONDS": str(DRAIN_DELAY_SECONDS),
    "SHUTDOWN_GRACE_SECONDS": str(GRACE_SECONDS),
}


@dataclass(slots=True)
class Program:
    """A running service program, and a channel to it."""

    process: asyncio.subprocess.Process
    channel: grpc.aio.Channel

    async def terminated(self) -> list[Any]:
        """Waits until the process has ended. Asserts exit status 0 and returns the log."""
        assert self.process.stdout is not None
        log = [json.loads(line) async for line in self.process.stdout]
        assert await self.process.wait() == 0
        return log


async def _logged(process: asyncio.subprocess.Process, event: str) -> Any:
    """Reads the log up to the event, and returns its line."""
    assert process.stdout is not None
    while (line := json.loads(await asyncio.wait_for(process.stdout.readline(), 60)))["event"] != event:
        pass
    return line


@contextlib.asynccontextmanager
async def program() -> AsyncIterator[Program]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.servicekit.rpc.feed_program", stdout=asyncio.subprocess.PIPE, env={**inherited, **SETTINGS}
    )
    try:
        line = await _logged(process, "started")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{line['grpc_port']}") as channel:
            yield Program(process, channel)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def test_streams_go_on_while_balancers_look_away_and_then_end_with_a_reason() -> None:
    async with program() as running:
        calls = [watch(running.channel) for _ in range(STREAMS)]
        for call in calls:
            await call.read()
        told = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        await _logged(running.process, "draining")
        # Load balancers may still route a new stream here.
        calls.append(watch(running.channel))
        outcomes = await asyncio.gather(*map(read_all, calls))
        took = time.monotonic() - told
        log = await running.terminated()
    for messages, error in outcomes:
        assert messages, "the stream sent no more messages"
        assert error is not None
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE.value[0], "DEPENDENCY_UNAVAILABLE")
        assert LAST_WORDS in error.message
    assert DRAIN_DELAY_SECONDS <= took < DRAIN_DELAY_SECONDS + CLOSE_TIMEOUT_SECONDS
    assert time.monotonic() - told < GRACE_SECONDS / 2, "the server waited for streams that had ended"
    assert [line["grpc_code"] for line in log if line["event"] == "call"] == ["UNAVAILABLE"] * len(calls)
    assert [line["event"] for line in log if line["event"] != "call"][-2:] == ["close_failed", "stopped"]
