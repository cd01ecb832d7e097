"""All processes of the benchmark: the stack, the floors, and the load generator."""

import asyncio
import base64
import json
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc.aio

from bench import calls, envoy, workload
from bench.calls import Calls
from bench.generator import Generator
from bench.jobs import Job, Protocol, Round
from bench.memory import resident
from bench.program import Program, listens, running
from bench.rows import Row, Target, Turn
from bench.users import Users
from devstack import ports
from devstack.config import HOST, StackConfig
from devstack.stack import Stack

# The bcrypt cost of production, because it determines how much logins slow down other calls. No limit of calls or logins may limit the load.
ENVIRONMENT = {
    "BCRYPT_COST": "12",
    "RATE_LIMIT_PER_SECOND": "0",
    "LOGIN_ACCOUNT_BURST": "1000",
    "LOGIN_ADDRESS_BURST": "1000",
    "REGISTER_ADDRESS_BURST": "1000",
}
# The processes whose memory is measured.
MEASURED = ("auth-1", "task-1", "gateway")
# Time after the start, so that the processes have created their connections.
REST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Way:
    """A way to reach the service, and the corresponding way to a floor."""

    name: str
    protocol: Protocol
    service: Target
    floor: Target


class System:
    """All processes of the benchmark, as an asynchronous context manager."""

    def __init__(self, profile: Path | None) -> None:
        """If `profile` is a file, the task service runs under cProfile and writes its profile there."""
        commands = dict(StackConfig().commands)
        if profile is not None:
            commands["task_service"] = (sys.executable, "-m", "cProfile", "-o", str(profile.absolute()), "-m", "task_service")
        self._config = StackConfig(environment=ENVIRONMENT, commands=commands)
        self._exit = AsyncExitStack()
        self.stack = Stack(self._config)
        self.auth_port = 0
        self.memory_at_rest: dict[str, int] = {}
        self.rpcs: list[Calls] = []
        self.scenarios: list[Calls] = []
        self.ways: list[Way] = []

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._exit = stack.pop_all()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._exit.__aexit__(kind, error, trace)

    async def run(self, job: Job) -> Round:
        """Makes the load generator run a round. Raises RuntimeError if it has ended."""
        return await self.generator.run(job)

    def memory(self) -> dict[str, int]:
        """Returns the resident memory of both services and the gateway, in bytes."""
        return resident({name: process.pid or 0 for name, process in self.stack.state.processes.items() if name in MEASURED})

    def rows(self, only: str) -> list[Row]:
        """Returns the rows whose way and name contain the words, without rounds."""
        found = []
        for way in self.ways:
            # For gRPC through the gateway one RPC is enough, because the gateway's own cost does not depend on the RPC.
            complete = way.protocol == "http" or way is self.ways[0]
            some = [*self.rpcs, *self.scenarios] if complete else self.rpcs[:1]
            found += [
                Row(way.name, way.protocol, Turn(way.floor, row_calls, self.users), Turn(way.service, row_calls, self.users)) for row_calls in some
            ]
        return [row for row in found if row.matches(only)]

    async def _start(self, exits: AsyncExitStack) -> None:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="task-manager-bench-")))
        # With a data directory, PostgreSQL runs with fsync, as in production. In an ephemeral stack, writes would not wait for the disk.
        self.stack = await exits.enter_async_context(Stack(replace(self._config, data_dir=folder / "data")))
        await asyncio.sleep(REST_SECONDS)
        state, self.memory_at_rest = self.stack.state, self.memory()
        auth, task, gateway = (state.processes[name] for name in ("auth-1", "task-1", "gateway"))
        assert task.grpc_port and task.pid and gateway.port and gateway.pid and auth.grpc_port and auth.ops_port  # noqa: PT018 - the stack runs
        self.auth_port, self.users = auth.grpc_port, await Users.create(state.url, workload.USERS)
        async with grpc.aio.insecure_channel(f"{HOST}:{task.grpc_port}") as channel:
            self.rpcs, self.scenarios = await workload.prepare(self.users.accounts, channel)
            replies = await calls.answers(channel, self.rpcs, await self.users.tokens())
        floor = await self._start_floor(exits, folder, (auth.grpc_port, auth.ops_port), replies)
        stores = {name: state.processes[name].pid or 0 for name in ("postgres", "valkey")}
        service = {"service": task.pid, **stores}
        direct, behind = Target(task.grpc_port, service), Target(gateway.port, {**service, "gateway": gateway.pid})
        self.ways = [
            Way("gRPC, straight to the service", "grpc", direct, floor["echo"]),
            Way("gRPC, through the gateway", "grpc", behind, floor["plain"]),
            Way("REST, through the gateway", "http", behind, floor["gateway"]),
        ]
        self.generator = await exits.enter_async_context(Generator.running())

    async def _start_floor(self, exits: AsyncExitStack, folder: Path, auth: tuple[int, int], answers: Mapping[str, bytes]) -> dict[str, Target]:
        one, other = ports.allocate(StackConfig()), ports.allocate(StackConfig())
        replies = folder / "replies.json"
        replies.write_text(json.dumps({path: base64.b64encode(answer).decode() for path, answer in answers.items()}), encoding="utf-8")
        port = one.task[0].grpc
        programs = (
            Program("floor", (sys.executable, "-m", "bench.floor", str(port), str(replies)), listens(port)),
            envoy.plain(folder, one, port, self._config),
            envoy.gateway(folder, other, port, auth, self._config),
        )
        echo, plain, gateway = [await exits.enter_async_context(running(program, folder)) for program in programs]
        return {
            "echo": Target(port, {"service": echo}),
            "plain": Target(one.gateway, {"service": echo, "gateway": plain}),
            "gateway": Target(other.gateway, {"service": echo, "gateway": gateway}),
        }
