"""The remaining time of the current call. The pipeline sets it; code that waits for the pool, SQL or Redis reads it.

It is a context variable, so that the functions in between need not pass it on.
"""

import time
from contextvars import ContextVar

from servicekit.errors import DeadlineExceeded

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


def begin(seconds: float) -> float:
    """Sets the deadline of this context's call to `seconds` from now. Returns the deadline on the clock of `time.monotonic`."""
    deadline = time.monotonic() + seconds
    _deadline.set(deadline)
    return deadline


def clear() -> None:
    """Removes the deadline of this context. For work that outlives the call that started it, or that serves several calls."""
    _deadline.set(None)


def bound(seconds: float) -> float:
    """Returns the smaller of `seconds` and the remaining time; without a call, `seconds`. Raises DeadlineExceeded if no time remains."""
    deadline = _deadline.get()
    if deadline is None:
        return seconds
    left = deadline - time.monotonic()
    if left <= 0:
        raise DeadlineExceeded
    return min(seconds, left)
