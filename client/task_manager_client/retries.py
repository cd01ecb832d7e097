"""When a failed request is sent again, and after which wait."""

import math
import random
import sys
from dataclasses import dataclass, replace
from typing import Final, Self

from task_manager_client.errors import (
    ConnectionFailed,
    DeadlineExceeded,
    Overloaded,
    SlowReader,
    TaskManagerError,
    TooManyRequests,
    TooManyUploads,
    TooManyWatches,
    Unavailable,
)

# Keeps the doubled wait within the range of a float.
_MAX_DOUBLINGS: Final = 30
_TRANSIENT: Final = (ConnectionFailed, Unavailable, Overloaded, TooManyRequests, TooManyUploads, TooManyWatches, SlowReader)


@dataclass(frozen=True, slots=True)
class Retries:
    """The limits of the retries of one call. The waits double from `first_seconds` to `most_seconds`, each with a random part ("full jitter").

    The server's own wait (RetryInfo) is a minimum. If it is longer than `patience_seconds`, the call fails at once instead.
    """

    attempts: int = 5
    first_seconds: float = 0.1
    most_seconds: float = 5.0
    patience_seconds: float = 5.0

    def wait_seconds(self, error: TaskManagerError, attempt: int, *, repeatable: bool) -> float | None:
        """Returns the wait after the failure of an attempt, the first being 1; or None if the call has failed."""
        is_transient = isinstance(error, _TRANSIENT) and not isinstance(error, DeadlineExceeded)
        if attempt >= self.attempts or not is_transient or not (repeatable or error.not_executed):
            return None
        least = error.retry_after or 0.0
        return None if least > self.patience_seconds else least + self.jitter_seconds(attempt)

    def jitter_seconds(self, attempt: int) -> float:
        """Returns a random wait before the next attempt. Clients that failed together then do not return together."""
        return random.uniform(0, min(self.most_seconds, self.first_seconds * 2 ** min(attempt - 1, _MAX_DOUBLINGS)))  # noqa: S311 - no secret

    def endless(self) -> Self:
        """Returns these limits without those for the number of attempts and the server's own wait."""
        return replace(self, attempts=sys.maxsize, patience_seconds=math.inf)
