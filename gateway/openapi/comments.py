"""What the comment of a method says: its summary, its description and its errors."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_ERRORS: Final = "Errors include:"
# One line of the list: `- NOT_FOUND (TASK_NOT_FOUND): the caller has no task with this id.`
_ERROR: Final = re.compile(r"^- (?P<status>[A-Z_]+) \((?P<reasons>[A-Z_, ]+)\): (?P<text>.+)$", re.MULTILINE)
_FIRST_SENTENCE: Final = re.compile(r"(.+?)\.(?=\s|$)", re.DOTALL)


@dataclass(frozen=True)
class StatedError:
    """An error that a method can return: the name of the gRPC status, the reasons, and when it occurs."""

    status: str
    reasons: tuple[str, ...]
    when: str


def summary_of(comment: str) -> str:
    """Returns the first sentence, without its full stop."""
    match = _FIRST_SENTENCE.match(comment)
    return match[1] if match else comment


def description_of(comment: str) -> str:
    """Returns the comment without its list of errors."""
    return comment.partition(_ERRORS)[0].strip()


def errors_of(comment: str) -> Iterator[StatedError]:
    """Yields the errors that the comment lists."""
    for match in _ERROR.finditer(comment.partition(_ERRORS)[2]):
        yield StatedError(match["status"], tuple(match["reasons"].split(", ")), match["text"])
