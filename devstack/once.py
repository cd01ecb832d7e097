"""A command of the stack that runs to its end, such as initdb or a migration; never one that stays."""

import asyncio
import signal

from devstack.errors import StackError
from devstack.process import Spec, describe, spawn, tail

_LIMIT_SECONDS = 120.0
_END_TIMEOUT_SECONDS = 5.0


async def run(spec: Spec, held: int) -> None:
    """Runs the command; raises StackError with the end of its output when it fails or takes too long."""
    running = await spawn(spec, held, append=False)
    try:
        async with asyncio.timeout(_LIMIT_SECONDS):
            status = await running.wait()
    except TimeoutError:
        raise StackError(f"{spec.name} took longer than {_LIMIT_SECONDS:.0f} s; end of {spec.log}:\n{tail(spec.log)}") from None
    finally:
        await _end(running)
    if status != 0:
        raise StackError(f"{spec.name} {describe(status)}; end of {spec.log}:\n{tail(spec.log)}")


async def _end(running: asyncio.subprocess.Process) -> None:
    """Ends it if it still runs: on a timeout, or when the caller was cancelled."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if running.returncode is not None:
            return
        running.send_signal(number)
        await asyncio.wait({asyncio.ensure_future(running.wait())}, timeout=_END_TIMEOUT_SECONDS)
