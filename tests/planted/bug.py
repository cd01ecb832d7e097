"""What a planted bug is. Values only."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bug:
    """In `file`, what stands there once as `old` becomes `new`; `tests` (arguments for pytest) must fail then."""

    name: str
    file: str
    old: str
    new: str
    tests: Sequence[str]
