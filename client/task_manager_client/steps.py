"""The steps of a call: what the logic of this package asks of the network and the clock.

The logic does no input or output, so that the blocking and the asyncio client share it: it consists of generators that yield steps and receive what
came of them.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request. `timeout` is the longest wait, in seconds, for a connection and for each piece of the answer; None is the client's own."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer. `body` is empty if the answer is a stream."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_error(self) -> bool:
        """Whether the status is not 2xx."""
        return not 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Send:
    """Send the request. The step's result is the Reply. Raises ConnectionFailed in the generator."""

    request: Request


@dataclass(frozen=True, slots=True)
class Open:
    """As Send, but leaves the body of a successful answer unread. It closes the stream that was open before."""

    request: Request


@dataclass(frozen=True, slots=True)
class NextLine:
    """Read the next line of the open stream. The result is its text, or None at the end. Raises ConnectionFailed in the generator."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for some seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Shielded:
    """Take the steps to their end, even if the caller is cancelled meanwhile. The result is theirs. Raises their error in the generator."""

    steps: "Steps[Any]"


@dataclass(frozen=True, slots=True)
class Emit(Generic[T]):
    """Give the caller a value of the iterator."""

    value: T


Step: TypeAlias = Send | Open | NextLine | Wait | Shielded
Steps: TypeAlias = Generator[Step, Any, T]
Emitting: TypeAlias = Generator[Step | Emit[T], Any, None]


class Course(Generic[T]):
    """Takes a generator through its steps. After each step, set `answer` or `failure`."""

    def __init__(self, steps: Generator[Any, Any, Any]) -> None:
        self._steps = steps
        self.answer: Any = None
        self.failure: Exception | None = None
        self.result: Any = None

    def next(self) -> Step | Emit[T] | None:
        """Returns the next step, or None after the last one. Raises the call's error."""
        answer, failure, self.answer, self.failure = self.answer, self.failure, None, None
        try:
            step: Step | Emit[T] = self._steps.send(answer) if failure is None else self._steps.throw(failure)
        except StopIteration as end:
            self.result = end.value
            return None
        return step

    def close(self) -> None:
        """Ends the generator where it is, so that it releases what it holds."""
        self._steps.close()


def send(request: Request) -> Steps[Reply]:
    """Sends a request. Raises ConnectionFailed."""
    reply: Reply = yield Send(request)
    return reply
