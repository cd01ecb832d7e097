"""An additional replica of a service next to those of a stack. It has its own settings, and the gateway does not know it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx

from devstack import ports
from devstack.config import HOST, PROJECT_ROOT, StackConfig
from devstack.stack import Stack
from tests.support.observed import value_in
from tests.support.ports import free_ports
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

READY_WITHIN_SECONDS = 180.0
PACKAGES = {"auth": "auth_service", "task": "task_service"}


class Replica:
    """A replica that tests can kill and restart on the same ports."""

    def __init__(self, stack: Stack, name: str, settings: Mapping[str, str]) -> None:
        """`name` begins with `auth-` or `task-`. `settings` override those of the stack's own replicas."""
        self._stack = stack
        self._name = name
        self._kind = name.partition("-")[0]
        self._settings = settings
        self._ports = ports.Replica(name, *free_ports(2))
        self._process: asyncio.subprocess.Process | None = None

    @property
    def target(self) -> str:
        """The gRPC target."""
        return f"{HOST}:{self._ports.grpc}"

    @property
    def ops_url(self) -> str:
        """The base URL of its ops port."""
        return f"http://{HOST}:{self._ports.ops}"

    async def start(self, *, until: str = "/readyz") -> None:
        """Starts the process and waits until the ops path `until` answers 200."""
        pid = self._stack.state.processes[f"{self._kind}-1"].pid
        given = dict(entry.split("=", 1) for entry in (await asyncio.to_thread(Path(f"/proc/{pid}/environ").read_text)).split("\0") if entry)
        environment = {**given, **self._settings, "GRPC_PORT": str(self._ports.grpc), "OPS_PORT": str(self._ports.ops)}
        command = StackConfig().commands[PACKAGES[self._kind]]
        with (self._stack.log_dir / f"{self._name}.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(*command, "run", env=environment, cwd=PROJECT_ROOT, stdout=log, stderr=log)
        await eventually(lambda: self._require_well(until), within=READY_WITHIN_SECONDS)

    async def kill(self) -> None:
        """Kills the process with SIGKILL."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def metric(self, name: str, **labels: str) -> float:
        """See tests.support.observed.metric."""
        return value_in((await self._ops("/metrics")).text, name, **labels)

    async def _require_well(self, path: str) -> None:
        assert (await self._ops(path)).status_code == httpx.codes.OK

    async def _ops(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(timeout=5) as client:
            return await client.get(self.ops_url + path)


@contextlib.asynccontextmanager
async def replica_of(
    stack: Stack, name: str, *, redis: Proxy | None = None, settings: Mapping[str, str] | None = None, until: str = "/readyz"
) -> AsyncIterator[Replica]:
    """Yields a ready replica (see Replica). If a proxy is given, the replica reaches Redis through it."""
    by_proxy = {"REDIS_URL": f"redis://{HOST}:{redis.port}/0"} if redis is not None else {}
    replica = Replica(stack, name, {**(settings or {}), **by_proxy})
    try:
        await replica.start(until=until)
        yield replica
    finally:
        await replica.kill()
