"""Running several starts or stops at once; it knows nothing of what they are."""

import asyncio
from collections.abc import Coroutine, Iterable


async def together(*parts: Coroutine[object, object, object]) -> None:
    """Runs all; when one fails, ends the others and raises its error as it is, not in a group."""
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
