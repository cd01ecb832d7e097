"""One process of the stack: starts it with its log, waits until it is ready, watches it, and stops it within a timeout."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from devstack.config import PROJECT_ROOT
from devstack.errors import ProcessDied, StackError, StartTimeout
from devstack.privileges import Account
from devstack.probe import Probe

_LAUNCHER = Path(__file__).with_name("launch.py")
_POLL_SECONDS = 0.025
_PROBE_TIMEOUT_SECONDS = 2.0
_KILL_TIMEOUT_SECONDS = 5.0
_RETRY_SECONDS = 10.0
_TAIL_LINES = 15
_TAIL_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Spec:
    """How to run one process.

    If `ready` is None, the process is ready as soon as it is started. The state file shows `ports`. If a start fails and the end of the log contains
    one of the texts in `retry_on`, the start is retried.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    ready: Probe | None = None
    ports: Mapping[str, int] = field(default_factory=dict)
    account: Account | None = None
    working_dir: Path = PROJECT_ROOT
    stop_signal: signal.Signals = signal.SIGTERM
    hurry_signal: signal.Signals = signal.SIGKILL
    stop_timeout_seconds: float = 10.0
    start_timeout_seconds: float = 60.0
    retry_on: tuple[str, ...] = ()


class Process:
    """A process with a Spec, running or not. It can be started again after its end."""

    def __init__(self, spec: Spec, held: int, on_spawn: Callable[["Process"], None], on_death: Callable[["Process"], None]) -> None:
        """`held` is a file descriptor that the process inherits. `on_death` is called if the process ends unexpectedly after it was ready."""
        self.spec = spec
        self._held = held
        self._on_spawn = on_spawn
        self._on_death = on_death
        self._running: asyncio.subprocess.Process | None = None
        self._end: asyncio.Task[int] | None = None
        self._watched = False
        self._starts = 0

    @property
    def pid(self) -> int | None:
        """The process id, or None if the process does not run."""
        return self._running.pid if self._running is not None and self.alive else None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._end is not None and not self._end.done()

    async def start(self) -> None:
        """Starts the process and returns when it is ready. Raises ProcessDied or StartTimeout."""
        began = time.monotonic()
        deadline = began + self.spec.start_timeout_seconds
        while True:
            await self._spawn()
            try:
                await self._until_ready(deadline)
            except ProcessDied:
                if time.monotonic() - began > _RETRY_SECONDS or not any(words in self.log_tail() for words in self.spec.retry_on):
                    raise
                await asyncio.sleep(_POLL_SECONDS)
            else:
                self._watched = True
                return

    async def _spawn(self) -> None:
        if self.alive:
            raise StackError(f"{self.spec.name} is already running")
        self._watched = False
        self._running = await spawn(self.spec, self._held, append=self._starts > 0)
        self._starts += 1
        self._end = asyncio.create_task(self._watch(self._running), name=f"watch {self.spec.name}")
        self._on_spawn(self)

    async def _watch(self, running: asyncio.subprocess.Process) -> int:
        status = await running.wait()
        if self._watched:
            # Call it only after this task is done, so that `alive` is already false in the callback.
            asyncio.get_running_loop().call_soon(self._on_death, self)
        return status

    async def _until_ready(self, deadline: float) -> None:
        assert self._end is not None
        while time.monotonic() < deadline:
            check = asyncio.ensure_future(_attempt(self.spec.ready))
            try:
                await asyncio.wait({check, self._end}, return_when=asyncio.FIRST_COMPLETED)
                if self._end.done():
                    raise self.death()
                if check.result():
                    return
            finally:
                check.cancel()
            await asyncio.wait({self._end}, timeout=_POLL_SECONDS)
        raise StartTimeout(
            f"{self.spec.name} did not become ready within {self.spec.start_timeout_seconds:.0f} s; end of {self.spec.log}:\n{self.log_tail()}"
        )

    def death(self) -> ProcessDied:
        """Returns the error for the ended process, with its exit status and the end of its log."""
        assert self._end is not None
        return ProcessDied(f"{self.spec.name} {describe(self._end.result())}; end of {self.spec.log}:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """Returns the last lines of the process's log."""
        return tail(self.spec.log)

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process and to every process in its process group."""
        if self._running is not None and self.alive:
            with suppress(ProcessLookupError):
                os.killpg(self._running.pid, number)

    async def stop(self, hurry: asyncio.Event | None = None) -> bool:
        """Sends the stop signal and waits. Kills the process at the end of `stop_timeout_seconds` or when `hurry` is set; then returns False."""
        self._watched = False
        if not self.alive:
            return True
        self.send_signal(self.spec.stop_signal)
        self.send_signal(signal.SIGCONT)  # a process that SIGSTOP has frozen receives the signal only after SIGCONT
        if await self._ends_within(self.spec.stop_timeout_seconds, hurry):
            return True
        for number in (self.spec.hurry_signal, signal.SIGKILL):
            self.send_signal(number)
            if await self._ends_within(_KILL_TIMEOUT_SECONDS):
                break
        return False

    async def kill(self, number: signal.Signals) -> None:
        """Sends a signal that ends the process and waits for its end, which does not count as unexpected. Raises StackError if it does not end."""
        self._watched = False
        self.send_signal(number)
        if not await self._ends_within(self.spec.stop_timeout_seconds):
            self._watched = True
            raise StackError(f"{self.spec.name} did not end on {number.name}")

    async def _ends_within(self, seconds: float, hurry: asyncio.Event | None = None) -> bool:
        if self._end is None:
            return True
        hurried = asyncio.ensure_future((hurry or asyncio.Event()).wait())
        try:
            await asyncio.wait([self._end, hurried], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurried.cancel()
        return self._end.done()


async def _attempt(probe: Probe | None) -> bool:
    if probe is None:
        return True
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT_SECONDS):
            return await probe()
    except TimeoutError:
        return False


async def spawn(spec: Spec, held: int, *, append: bool) -> asyncio.subprocess.Process:
    """Starts the command in a new session, so that Ctrl-C in a terminal reaches only the supervisor.

    With `append` the process continues the existing log. Without it the existing log is renamed to NAME.log.1 and the process starts a new log.
    """
    account = spec.account
    orders = {
        "parent": os.getpid(),
        "death_signal": int(spec.stop_signal),
        "uid": account and account.uid,
        "gid": account and account.gid,
        "capabilities": account and account.capabilities,
    }
    if not append and spec.log.exists():
        spec.log.replace(spec.log.with_suffix(".log.1"))
    with spec.log.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(_LAUNCHER), json.dumps(orders), *spec.command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(spec.environment),
            cwd=spec.working_dir,
            start_new_session=True,
            pass_fds=(held,),
        )


def describe(status: int) -> str:
    """Describes an exit status in words."""
    if status >= 0:
        return f"exited with status {status}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-status).name}"
    return f"was ended by signal {-status}"


def tail(log: Path) -> str:
    """Returns the last lines of a log, indented."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
    except OSError:
        lines = []
    return "\n".join(f"  {line}" for line in lines or ["(nothing)"])
