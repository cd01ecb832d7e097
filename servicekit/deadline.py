"""The time that the call under way has left. Set by the pipeline, read by whatever waits: pool, SQL, Redis.

A context variable, since it goes all the way down through code that is not about it.
"""

import time
from contextvars import ContextVar

from servicekit.errors import DeadlineExceeded

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


def begin(seconds: float) -> float:
    """Says that the call of this context has `seconds` left. Returns the deadline on the clock of `time.monotonic`."""
    deadline = time.monotonic() + seconds
    _deadline.set(deadline)
    return deadline


def clear() -> None:
    """Says that what runs in this context is no call's: for work that outlives the call it began in, or serves several."""
    _deadline.set(None)


def bound(seconds: float) -> float:
    """The smaller of `seconds` and the time left; `seconds` outside of any call. Raises DeadlineExceeded if none is left."""
    deadline = _deadline.get()
    if deadline is None:
        return seconds
    left = deadline - time.monotonic()
    if left <= 0:
        raise DeadlineExceeded
    return min(seconds, left)
