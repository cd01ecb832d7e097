"""The bytes of large requests that a process works on at the same time: a limit for each user, and one for all.

A request takes several times its size while it is worked on: the message, the values, the statement's parameters, the answer. Nearly all requests are
far below LARGE_BYTES and are not counted. A request beyond a limit is rejected before it is parsed, because it would take its memory while it waits.
"""

import contextlib
from collections.abc import Iterator
from typing import Final
from uuid import UUID

from servicekit.errors import Overloaded

LARGE_BYTES: Final = 64 * 1024
# Three requests of the maximum size of a request.
USER_BYTES: Final = 9 * 1024 * 1024
# Measured: a batch of 2.9 MB takes about 11 MB. So all of them take about 100 MB, which is what the memory limit of the chart has room for.
PROCESS_BYTES: Final = 24 * 1024 * 1024


class ByteBudget:
    """Counts the bytes of the large requests that run."""

    def __init__(self, user_bytes: int = USER_BYTES, process_bytes: int = PROCESS_BYTES) -> None:
        self._user_bytes = user_bytes
        self._process_bytes = process_bytes
        self._taken: dict[UUID | None, int] = {}
        self._taken_by_all = 0

    def take(self, user_id: UUID | None, size: int) -> None:
        """Takes the bytes of a request until `give_back`. Raises Overloaded, with a time to wait, if that exceeds a limit.

        Calls without a user share the limit of one. A single request is never too large for the limit of a user.
        """
        taken = self._taken.get(user_id, 0)
        if (taken and taken + size > self._user_bytes) or (self._taken_by_all and self._taken_by_all + size > self._process_bytes):
            raise Overloaded
        self._taken[user_id] = taken + size
        self._taken_by_all += size

    @contextlib.contextmanager
    def hold(self, user_id: UUID | None, size: int) -> Iterator[None]:
        """Takes the bytes of a large request for the block, and nothing for a small one. Raises Overloaded as `take`."""
        if size <= LARGE_BYTES:
            yield
            return
        self.take(user_id, size)
        try:
            yield
        finally:
            self.give_back(user_id, size)

    def give_back(self, user_id: UUID | None, size: int) -> None:
        """Gives the bytes back."""
        self._taken_by_all -= size
        self._taken[user_id] -= size
        if not self._taken[user_id]:
            del self._taken[user_id]
