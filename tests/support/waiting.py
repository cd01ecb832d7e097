"""Waits until a condition holds, with a time limit."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx
import pytest

T = TypeVar("T")


async def eventually(check: Callable[[], Awaitable[T]], *, within: float, every: float = 0.05) -> T:
    """Repeats `check` until it raises no AssertionError or httpx.TransportError, nor the error of `pytest.raises`. Returns its result.

    After `within` seconds it raises the last error.
    """
    deadline = time.monotonic() + within
    while True:
        try:
            return await check()
        except (AssertionError, pytest.fail.Exception, httpx.TransportError):
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(every)
