"""Runs several coroutines at once."""

import asyncio
from collections.abc import Coroutine, Iterable


async def together(*parts: Coroutine[object, object, object]) -> None:
    """Runs all coroutines at once. If one fails, cancels the others and raises that error itself, not an exception group."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        await _first_failure(tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _first_failure(tasks: Iterable["asyncio.Task[object]"]) -> None:
    for done in asyncio.as_completed(tasks):
        await done
