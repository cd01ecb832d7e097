"""Runs the state machine on the running system, from a seed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import grpc.aio
import httpx
import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis.stateful import run_state_machine_as_test

from devstack.config import HOST
from devstack.stack import Stack
from tests.model.machine import Machine, World
from tests.model.ways import Grpc, Rest
from tests.support.accounts import Account


@contextlib.asynccontextmanager
async def world_of(stack: Stack, rest: httpx.AsyncClient, new_account: Callable[[], Awaitable[Account]]) -> AsyncIterator[World]:
    """Yields the system with its ways: gRPC directly to each replica, and gRPC and REST through the gateway."""
    targets = [f"{HOST}:{stack.state.processes[name].grpc_port}" for name in ("task-1", "task-2")] + [stack.state.url.removeprefix("http://")]
    async with contextlib.AsyncExitStack() as opened:
        channels = [await opened.enter_async_context(grpc.aio.insecure_channel(target)) for target in targets]
        pool = await opened.enter_async_context(asyncpg.create_pool(stack.state.database_url, min_size=0, max_size=2))
        straight, *others = map(Grpc, channels)
        yield World(asyncio.get_running_loop(), straight, [straight, *others, Rest(rest)], new_account, pool)


async def run(world: World, seed: int, *, examples: int, steps: int, shrink: bool) -> None:
    """Runs Hypothesis in its own thread, because it blocks on each answer. The same seed gives the same examples."""
    settings = hypothesis.settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        print_blob=True,
        report_multiple_bugs=False,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    @hypothesis.seed(seed)
    def machine() -> Machine:
        return Machine(world)

    await asyncio.to_thread(run_state_machine_as_test, machine, settings=settings)
