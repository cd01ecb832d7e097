"""A history of calls to one task. Decides whether some order of all calls explains every answer (linearizability).

A task's version gives the order of its writes. So these checks are enough: a read's version is at least that of every call that ended before the read
began; a write's version is greater than that; each version has one title; and a write of that title had begun.
"""

import time
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field

from tests.support.task_api import Seen


@dataclass(frozen=True, slots=True)
class Call:
    """An answered call. Times are on the clock of time.monotonic."""

    who: str
    is_write: bool
    began: float
    ended: float
    seen: Seen

    def __str__(self) -> str:
        return f"{self.who} {'wrote' if self.is_write else 'read'} version {self.seen.version}"


@dataclass(slots=True)
class History:
    """The answered calls for one task, and all titles that clients tried to write."""

    calls: list[Call] = field(default_factory=list)
    # The start time of each title's write, answered or not.
    tried: dict[str, float] = field(default_factory=dict)

    async def read(self, who: str, call: Awaitable[Seen]) -> Seen:
        """Awaits a read and records it."""
        return await self._note(who, call, is_write=False)

    async def write(self, who: str, title: str, call: Awaitable[Seen]) -> Seen:
        """Awaits a write of that title and records it. Each title must be written only once."""
        self.tried[title] = time.monotonic()
        return await self._note(who, call, is_write=True)

    async def _note(self, who: str, call: Awaitable[Seen], *, is_write: bool) -> Seen:
        began = time.monotonic()
        seen = await call
        self.calls.append(Call(who, is_write, began, time.monotonic(), seen))
        return seen

    def contradictions(self) -> list[str]:
        """Returns the answers that no order explains."""
        return [*self._backwards(), *self._confused()]

    def _backwards(self) -> Iterator[str]:
        ended = sorted(self.calls, key=lambda call: call.ended)
        newest: Call | None = None
        done = 0
        for call in sorted(self.calls, key=lambda call: call.began):
            while ended[done].ended < call.began:
                if newest is None or ended[done].seen.version > newest.seen.version:
                    newest = ended[done]
                done += 1
            if newest is not None and call.seen.version < newest.seen.version + call.is_write:
                yield f"{call}, {(call.began - newest.ended) * 1000:.1f} ms after {newest}"

    def _confused(self) -> Iterator[str]:
        titles: dict[int, str] = {}
        for call in self.calls:
            title = titles.setdefault(call.seen.version, call.seen.title)
            if title != call.seen.title:
                yield f"{call} as {call.seen.title!r}, which was {title!r}"
            if self.tried.get(call.seen.title, call.ended + 1) > call.ended:
                yield f"{call} as {call.seen.title!r}, which nobody had tried to write"
