"""Outages of a stack's processes: freezes processes with all their children, and restores the stack."""

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import httpx

from devstack.stack import Stack
from devstack.state import kind_of
from tests.support.observed import hosts_in_use, metric, ops
from tests.support.waiting import eventually

WHOLE_WITHIN_SECONDS = 60.0


def freeze(stack: Stack, process: str) -> None:
    """Suspends a process and all its descendants (SIGSTOP). They keep their connections but do not answer."""
    _signal(stack, process, signal.SIGSTOP)


def thaw(stack: Stack, process: str) -> None:
    """Continues a frozen process and its descendants."""
    _signal(stack, process, signal.SIGCONT)


@contextlib.contextmanager
def frozen(stack: Stack, process: str) -> Iterator[None]:
    """Freezes a process during the block."""
    freeze(stack, process)
    try:
        yield
    finally:
        thaw(stack, process)


async def heal(stack: Stack) -> None:
    """Starts every stopped process, thaws every other one, and waits until `require_whole` succeeds."""
    for name, process in stack.state.processes.items():
        if process.pid is None:
            await stack.start_process(name)
        else:
            thaw(stack, name)
    await eventually(lambda: require_whole(stack), within=WHOLE_WITHIN_SECONDS)


@contextlib.asynccontextmanager
async def restored(stack: Stack) -> AsyncIterator[None]:
    """Heals the stack before and after the block, which may break it. For a fixture, so the block raises nothing."""
    await heal(stack)
    yield
    await heal(stack)


async def require_whole(stack: Stack) -> None:
    """Fails unless every process is ready, the gateway uses every replica, and every task replica uses Redis."""
    for name in replicas(stack, "auth", "task", "task-worker"):
        assert (await ops(stack, name, "/readyz")).status_code == httpx.codes.OK, f"{name} is not ready"
    for name in replicas(stack, "task"):
        assert await metric(stack, name, "redis_breaker_open") == 0, f"{name} does not use Redis"
    for kind in ("auth", "task"):
        assert await hosts_in_use(stack, f"{kind}_service") == len(replicas(stack, kind)), f"the gateway does not use every replica of {kind}_service"
    async with httpx.AsyncClient(timeout=5) as client:
        assert (await client.get(f"{stack.state.url}/ready")).status_code == httpx.codes.OK, "the gateway is not ready"


async def commit_before_answering(stack: Stack, *, on: bool = True) -> None:
    """Switches synchronous commits on, or off again. The ephemeral PostgreSQL commits asynchronously, so a SIGKILL would lose acknowledged writes."""
    connection = await asyncpg.connect(stack.state.database_url)
    try:
        await connection.execute(f"ALTER DATABASE taskmanager {'SET synchronous_commit = on' if on else 'RESET synchronous_commit'}")
        # Existing connections keep the old setting.
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = 'taskmanager'")
    finally:
        await connection.close()
    await eventually(lambda: require_whole(stack), within=WHOLE_WITHIN_SECONDS)


def replicas(stack: Stack, *kinds: str) -> list[str]:
    """Returns the names of the processes of these services."""
    return [name for name in stack.state.processes if kind_of(name) in kinds]


def _signal(stack: Stack, process: str, number: signal.Signals) -> None:
    pid = stack.state.processes[process].pid
    if pid is None:
        return
    # The parent comes first, so that a suspended parent cannot start new children.
    for one in (pid, *_descendants(pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, number)


def _descendants(pid: int) -> Iterator[int]:
    for child in _children(pid):
        yield child
        yield from _descendants(child)


def _children(pid: int) -> list[int]:
    """Returns the children of a process. One that has ended, such as a server process whose client has left, has none."""
    children: list[int] = []
    # A process that ends while its files are read: ENOENT or ESRCH.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").glob("*/children"):
            children.extend(map(int, thread.read_text().split()))
    return children
