"""Measures the work of a function by the calls that it makes, of Python and of C, so that a busy machine does not change the result."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")

# A search makes at most a dozen calls for each of MAX_PERIODS. A walk of dateutil to the year 9999 makes more.
MAX_CALLS = 30_000


def work_of(function: Callable[[], Result]) -> Result:
    """Returns the function's result. Stops it, with an AssertionError, when it has made MAX_CALLS calls."""
    calls = 0

    def count(_: FrameType, event: str, __: Any) -> None:
        nonlocal calls
        if event in {"call", "c_call"}:
            calls += 1
            assert calls <= MAX_CALLS, f"more than {MAX_CALLS} calls"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        return function()
    finally:
        sys.setprofile(before)
