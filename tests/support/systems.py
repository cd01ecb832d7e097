"""The systems that run in this test process, so that a failed test can name them."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import pytest

from devstack.stack import Stack

_RUNNING: Final[list[Stack]] = []


def running() -> Sequence[Stack]:
    """Returns the systems that have started or are starting, and have not stopped."""
    return [stack for stack in _RUNNING if stack._data is not None]


def note(patch: pytest.MonkeyPatch) -> None:
    """Patches Stack, so that every system is recorded from its start to its stop."""
    patch.setattr(Stack, "start", _noting(Stack.start))
    patch.setattr(Stack, "stop", _forgetting(Stack.stop))


def _noting(start: Callable[[Stack], Awaitable[None]]) -> Callable[[Stack], Awaitable[None]]:
    async def starting(stack: Stack) -> None:
        _RUNNING.append(stack)
        await start(stack)

    return starting


def _forgetting(stop: Callable[[Stack], Awaitable[None]]) -> Callable[[Stack], Awaitable[None]]:
    async def stopping(stack: Stack) -> None:
        await stop(stack)
        if stack in _RUNNING:
            _RUNNING.remove(stack)

    return stopping
