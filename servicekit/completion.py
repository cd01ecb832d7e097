"""Work that a caller who leaves must not interrupt."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def run_to_completion(work: Coroutine[Any, Any, T]) -> T:
    """Does what changes something, and logs it, also when the caller leaves meanwhile: else a thief would leave no trace by leaving in time.

    It is short, whatever it waits for has a bound of its own, and until it is done the call is under way and counts as such.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # There is nobody left to be told how it ended.
        with contextlib.suppress(Exception):
            await asyncio.shield(task)
        raise
