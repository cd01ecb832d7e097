"""The values of the deletion of accounts."""

from dataclasses import dataclass
from enum import StrEnum


class Left(StrEnum):
    """What is left of an account after a batch. The function task.remove_account uses the same words."""

    SOME = "some"
    NONE = "none"
    # The account is not queued any more, or another replica deletes its rows at the moment.
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True, slots=True)
class Removed:
    """One batch: the number of deleted rows, and what is left of the account."""

    rows: int
    left: Left
