"""Work that continues to its end even if its caller is cancelled."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def run_to_completion(work: Coroutine[Any, Any, T]) -> T:
    """Runs work that changes something and logs it. A cancelled call does not stop it: otherwise an attacker could avoid the log entry by cancelling.

    The work must be short, and each of its waits must have its own timeout. Until the work is done, the call counts as running.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # The caller is gone and cannot receive an error of the work.
        with contextlib.suppress(Exception):
            await asyncio.shield(task)
        raise
