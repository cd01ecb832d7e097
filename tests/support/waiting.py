"""Waiting for what comes about by itself, within a time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx

T = TypeVar("T")


async def eventually(check: Callable[[], Awaitable[T]], *, within: float, every: float = 0.05) -> T:
    """What `check` returns, as soon as it neither fails an assertion nor finds nobody there. Its last failure is raised after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        try:
            return await check()
        except (AssertionError, httpx.TransportError):
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(every)
