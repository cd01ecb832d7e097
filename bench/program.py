"""A program of the benchmark: starts it, waits until it answers, and ends it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from devstack.config import HOST, PROJECT_ROOT
from devstack.probe import Probe

START_SECONDS = 20.0
STOP_SECONDS = 5.0
POLL_SECONDS = 0.025


@dataclass(frozen=True, slots=True)
class Program:
    """A command to run, and the probe for its readiness."""

    name: str
    command: tuple[str, ...]
    ready: Probe


@asynccontextmanager
async def running(program: Program, folder: Path) -> AsyncIterator[int]:
    """Runs a program, writes its log to the folder and yields its pid.

    Raises RuntimeError with the log if the program ends before it is ready, and TimeoutError if it is not ready after START_SECONDS.
    """
    log = folder / f"{program.name}.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *program.command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, cwd=PROJECT_ROOT
        )
    try:
        async with asyncio.timeout(START_SECONDS):
            while not await program.ready():
                if process.returncode is not None:
                    raise RuntimeError(f"{program.name} ended with status {process.returncode}:\n{log.read_text(errors='replace')}")
                await asyncio.sleep(POLL_SECONDS)
        yield process.pid
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def listens(port: int) -> Probe:
    """Returns a probe that is true if the port accepts connections."""

    async def probe() -> bool:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            return False
        writer.close()
        return True

    return probe
