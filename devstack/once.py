"""Runs a command of the stack that ends by itself, such as initdb or a migration."""

import asyncio
import signal

from devstack.errors import StackError
from devstack.process import Spec, describe, spawn, tail

_LIMIT_SECONDS = 120.0
_END_TIMEOUT_SECONDS = 5.0


async def run(spec: Spec, held: int) -> None:
    """Runs the command. Raises StackError with the end of its log if it fails or takes longer than 120 s."""
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
    """Ends the process if it still runs, after a timeout or the caller's cancellation: SIGTERM, then SIGKILL after 5 s."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if running.returncode is not None:
            return
        running.send_signal(number)
        await asyncio.wait({asyncio.ensure_future(running.wait())}, timeout=_END_TIMEOUT_SECONDS)
