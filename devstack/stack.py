"""The whole system: starts the processes in order, watches them, and stops them in reverse order.

Tests, the benchmark and the command line use it as `async with Stack(config) as stack:`. If a caller ends a process with `kill` or `stop_process`,
the stack does not count this as a failure and the other processes continue. `start_process` starts it again on the same ports.
"""

import asyncio
import signal
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from devstack import gateway, keys, once, pgbouncer, ports, postgres, valkey
from devstack.concurrently import together
from devstack.config import StackConfig
from devstack.data_dir import DataDir
from devstack.errors import ProcessDied, StackError
from devstack.postgres import Postgres
from devstack.process import Process, Spec
from devstack.roles import SUPERUSER
from devstack.screen import Part, Screen, Silent, Step
from devstack.services import Services
from devstack.state import ProcessState, State, kind_of

# The kinds of processes, in the order in which the stack stops them.
_STOP_ORDER = ("gateway", "task-worker", "task", "auth", "valkey", "pgbouncer", "postgres")


class Stack:
    """One running system."""

    def __init__(self, config: StackConfig, screen: Screen | None = None) -> None:
        """The stack shows its progress on the screen."""
        self._config = config
        self._screen = screen or Silent()
        self._data: DataDir | None = None
        self._allocation: ports.Allocation | None = None
        self._processes: dict[str, Process] = {}
        self._urls = {"url": "", "database_url": "", "redis_url": ""}
        self._tls_url: str | None = None
        self._death: asyncio.Future[NoReturn] | None = None
        self._hurry = asyncio.Event()
        self._ready = False
        self._killed: list[str] = []
        self._state_written: Path | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()
        if error is None and self._death is not None and self._death.done():
            await self._death

    @property
    def state(self) -> State:
        """The current addresses and pids."""
        assert self._data is not None
        processes = {
            name: ProcessState(pid=process.pid, log=str(process.spec.log), **process.spec.ports) for name, process in self._processes.items()
        }
        return State(data_dir=str(self._data.root), processes=processes, tls_url=self._tls_url, **self._urls)

    @property
    def log_dir(self) -> Path:
        """The directory of the processes' logs."""
        assert self._data is not None
        return self._data.logs

    @property
    def killed(self) -> tuple[str, ...]:
        """The names of the processes that did not stop in time, so that `stop` killed them."""
        return tuple(self._killed)

    async def start(self) -> None:
        """Starts all processes and returns when they are ready. If anything fails, stops the started processes and raises StackError."""
        self._death = asyncio.get_running_loop().create_future()
        try:
            await self._unless_one_dies(self._start_all())
        except BaseException as error:
            if isinstance(error, StackError):
                self._screen.settle()
                self._screen.say(str(error))
            await self.stop()
            raise
        self._ready = True
        self._screen.settle()
        self._write_state()

    async def stop(self) -> None:
        """Stops all processes in order. A second call does nothing."""
        self._ready = False
        if self._state_written is not None:
            self._state_written.unlink(missing_ok=True)
        for kind in _STOP_ORDER:
            await asyncio.gather(*(self._stop_one(process) for process in self._of(kind)))
        if self._data is not None:
            self._data.close()
            self._data = None
        self._allocation = None

    def hurry(self) -> None:
        """Makes the current stop, or a later one, kill processes instead of waiting for them."""
        self._hurry.set()

    async def wait_for_death(self) -> NoReturn:
        """Waits until a process ends unexpectedly, and raises ProcessDied."""
        assert self._death is not None
        await asyncio.shield(self._death)

    async def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends one process by a signal and waits for its end. The other processes continue."""
        await self._process(name).kill(number)
        self._changed(name)

    def send_signal(self, name: str, number: signal.Signals) -> None:
        """Sends a signal that does not end the process, such as SIGSTOP and SIGCONT."""
        self._process(name).send_signal(number)

    async def stop_process(self, name: str) -> None:
        """Stops one process in the same way as `stop`. The other processes continue."""
        await self._process(name).stop(self._hurry)
        self._changed(name)

    async def start_process(self, name: str) -> None:
        """Starts a stopped process on its previous ports, and returns when it is ready."""
        process, began = self._process(name), time.monotonic()
        self._screen.show(Part(name, Step.STARTING, ports=process.spec.ports))
        await process.start()
        self._screen.show(Part(name, Step.READY, time.monotonic() - began, process.spec.ports))
        self._changed(name)

    async def restart(self, name: str) -> None:
        """Stops and starts one process."""
        await self.stop_process(name)
        await self.start_process(name)

    async def _unless_one_dies(self, part: Coroutine[None, None, None]) -> None:
        assert self._death is not None
        task = asyncio.ensure_future(part)
        try:
            await asyncio.wait((task, self._death), return_when=asyncio.FIRST_COMPLETED)
        finally:
            task.cancel()
            await asyncio.wait([task])
        if self._death.done():
            await self._death
        await task

    async def _start_all(self) -> None:
        config = self._config
        gateway.require_files(config)
        data = self._data = await DataDir.opened(config.data_dir, config.log_dir)
        allocation = self._allocation = ports.allocate(config)
        secrets = keys.load_or_create(data.secrets)
        database = Postgres(data, allocation.postgres, secrets.passwords, config.start_timeout_seconds)
        redis_url = valkey.url(allocation.valkey)
        self._urls = {"url": f"http://localhost:{allocation.gateway}", "database_url": database.url(SUPERUSER), "redis_url": redis_url}
        self._tls_url = f"https://localhost:{allocation.tls}" if allocation.tls else None
        pooler = self._pooler(database, allocation, secrets.passwords)

        def database_url(role: str) -> str:
            return postgres.url(role, secrets.passwords[role], allocation.pgbouncer or allocation.postgres)

        services = Services(config, data, allocation, secrets, database_url, redis_url)
        await together(
            self._start_database(database, pooler, services),
            self._launch(valkey.server(data, allocation.valkey, config.start_timeout_seconds)),
            self._prepare_gateway(data, allocation),
        )
        await self.start_process("gateway")

    def _pooler(self, database: Postgres, allocation: ports.Allocation, passwords: Mapping[str, str]) -> Spec | None:
        if allocation.pgbouncer is None:
            return None
        assert self._data is not None
        return pgbouncer.server(self._data, allocation.pgbouncer, allocation.postgres, passwords, database.account)

    async def _start_database(self, database: Postgres, pooler: Spec | None, services: Services) -> None:
        await database.prepare()
        await self._launch(database.server())
        await database.ensure_database()
        if pooler is not None:
            await self._launch(pooler)
        # The services start while the migrations run. They wait for the schema and for each other's keys, and most of a start is Python's imports.
        await together(self._migrate(services), *(self._launch(spec) for spec in services.all()))

    async def _migrate(self, services: Services) -> None:
        began = time.monotonic()
        assert self._data is not None
        self._screen.show(Part("migrations", Step.STARTING))
        await together(*(once.run(spec, self._data.held) for spec in services.migrations()))
        self._screen.show(Part("migrations", Step.READY, time.monotonic() - began))

    async def _prepare_gateway(self, data: DataDir, allocation: ports.Allocation) -> None:
        # In a thread, while PostgreSQL starts: it costs no extra time, and it finds wrong settings early.
        self._add(await asyncio.to_thread(gateway.server, self._config, data, allocation))

    async def _launch(self, spec: Spec) -> None:
        self._add(spec)
        await self.start_process(spec.name)

    def _add(self, spec: Spec) -> None:
        assert self._data is not None
        self._processes[spec.name] = Process(spec, self._data.held, self._note_pid, self._died)

    async def _stop_one(self, process: Process) -> None:
        if not process.alive:
            return
        began = time.monotonic()
        clean = await process.stop(self._hurry)
        name, took = process.spec.name, time.monotonic() - began
        if not clean:
            self._killed.append(name)
        self._screen.show(Part(name, Step.STOPPED if clean else Step.KILLED, took))

    def _died(self, process: Process) -> None:
        if self._death is not None and not self._death.done():
            death = process.death()
            if self._ready:
                self._screen.say(str(death))
            self._death.set_exception(death)
            self._death.exception()  # marks it as retrieved; otherwise asyncio logs a warning if no caller awaits it

    def _of(self, kind: str) -> list[Process]:
        return [process for name, process in self._processes.items() if kind_of(name) == kind]

    def _process(self, name: str) -> Process:
        with suppress(KeyError):
            return self._processes[name]
        raise StackError(f"no process is named {name}: there are {', '.join(self._processes)}")

    def _note_pid(self, process: Process) -> None:
        if self._data is not None:
            self._data.note_pid(process.spec.name, process.pid)

    def _changed(self, name: str) -> None:
        self._note_pid(self._process(name))
        if self._ready:
            self._write_state()

    def _write_state(self) -> None:
        if self._config.state_file is not None:
            self._state_written = self._config.state_file.absolute()
            self.state.write(self._state_written)


__all__ = ["ProcessDied", "Stack", "StackError"]
