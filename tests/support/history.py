"""What was seen of one task, and when: whether some order of all the calls explains every answer (linearizability).

A task's version is the order of its writes. So it is enough that a call shows no less than any call that had ended before it began, a write more than
that, and that a version has one title, which somebody was writing by then.
"""

import time
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field

from tests.support.task_api import Seen


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was answered. Times are those of time.monotonic."""

    who: str
    is_write: bool
    began: float
    ended: float
    seen: Seen

    def __str__(self) -> str:
        return f"{self.who} {'wrote' if self.is_write else 'read'} version {self.seen.version}"


@dataclass(slots=True)
class History:
    """The calls about one task that were answered, and all titles that were tried."""

    calls: list[Call] = field(default_factory=list)
    # When the write of each title began, answered or not.
    tried: dict[str, float] = field(default_factory=dict)

    async def read(self, who: str, call: Awaitable[Seen]) -> Seen:
        """The answer, noted."""
        return await self._note(who, call, is_write=False)

    async def write(self, who: str, title: str, call: Awaitable[Seen]) -> Seen:
        """The answer of a call that gives the task that title, noted. No two give it the same."""
        self.tried[title] = time.monotonic()
        return await self._note(who, call, is_write=True)

    async def _note(self, who: str, call: Awaitable[Seen], *, is_write: bool) -> Seen:
        began = time.monotonic()
        seen = await call
        self.calls.append(Call(who, is_write, began, time.monotonic(), seen))
        return seen

    def contradictions(self) -> list[str]:
        """What no order explains."""
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
