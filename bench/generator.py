"""The load generator, seen from the benchmark: a process that runs one job at a time (`bench.load`)."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from bench.jobs import Job, Round
from devstack.config import PROJECT_ROOT

# The load generator sends all latencies of a round in one line.
MAX_LINE_BYTES = 64 * 1024 * 1024


class Generator:
    """The running process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator[Self]:
        """Runs the process."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.load"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=MAX_LINE_BYTES,
            cwd=PROJECT_ROOT,
        )
        assert process.stdin is not None
        try:
            yield cls(process)
        finally:
            process.stdin.close()
            await process.wait()

    async def run(self, job: Job) -> Round:
        """Runs a round. Raises RuntimeError if the process has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{job.to_json()}\n".encode())
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the load generator has ended")
        return Round(**json.loads(line))
