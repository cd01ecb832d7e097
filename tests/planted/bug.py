"""The data class of a planted bug."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bug:
    """A replacement in `file`: `old`, which must occur exactly once, becomes `new`. `tests` (arguments for pytest) must then fail."""

    name: str
    file: str
    old: str
    new: str
    tests: Sequence[str]
