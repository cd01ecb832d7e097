"""The watcher of the kind job's load, on fake streams: a drain is no fault; a gap, a repeated change, a wrong order and any other end are faults."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from tests.deploy.kind import follower as module
from tests.deploy.kind.follower import Follower
from tests.support.accounts import Account
from tests.support.load import SETUP
from tests.support.task_api import Seen
from tests.support.watchers import CHECKPOINT, OVER, StreamEnded, Told

ACCOUNT = Account("me", "me@example.com", "", "")
UNAVAILABLE = "UNAVAILABLE"


class Tasks:
    """A fake of the task API with one task that can be created and renamed."""

    def __init__(self) -> None:
        self.version = 0

    async def create(self, title: str, request_id: str) -> Seen:
        return await self.rename("1", title, request_id)

    async def get(self, task_id: str, request_id: str) -> Seen:
        raise NotImplementedError

    async def rename(self, task_id: str, title: str, request_id: str, etag: str = "") -> Seen:  # noqa: ARG002 - parameters of TaskApi
        self.version += 1
        return Seen(task_id, title, self.version)

    async def delete(self, task_id: str, request_id: str) -> None:
        raise NotImplementedError

    async def list(self, request_id: str) -> Sequence[Seen]:
        raise NotImplementedError


async def _faults(*streams: Sequence[int | str]) -> tuple[list[str], int]:
    """Writes three changes. Each stream yields the versions in its list; a string ends it with that code. Returns the faults and the resumes."""
    left = iter(streams)

    async def way(account: Account, resume_token: str) -> AsyncGenerator[Told, None]:
        for number, told in enumerate(next(left)):
            if isinstance(told, str):
                raise StreamEnded(*told.split())
            if number == 0:
                yield Told(CHECKPOINT, {}, "begun", 0.0)
            if told:
                yield Told("UPDATED", {"id": "1", "etag": f'"{told}"'}, f"after {told}", 0.0)
        await asyncio.Event().wait()

    async with Follower(way, ACCOUNT) as follower:
        ((_, change),) = await follower.writing(Tasks())
        for _ in range(2):
            await change(SETUP)
        return await follower.faults(), follower.resumed


async def test_a_watch_that_is_told_of_everything_has_no_fault() -> None:
    assert await _faults([1, 2, 3]) == ([], 0)


async def test_a_drain_is_no_fault_if_it_goes_on_from_there() -> None:
    assert await _faults([1, UNAVAILABLE], [UNAVAILABLE], [2, 3]) == ([], 1)


async def test_a_reset_without_a_reason_is_no_fault_if_it_goes_on_from_there() -> None:
    """What gRPC reports if a replica is killed behind the gateway."""
    assert await _faults([1, "INTERNAL"], [2, 3]) == ([], 1)


@pytest.mark.parametrize(
    ("streams", "fault"),
    [
        ([[1, 3]], "('1', 2) was not told"),
        ([[1, UNAVAILABLE], [3]], "('1', 2) was not told"),
        ([[1, 2, UNAVAILABLE], [2, 3]], "('1', 2) was told 2 times"),
        ([[2, 1, 3]], "in another order"),
        ([[1, "INTERNAL INTERNAL_ERROR"], [2, 3]], "ended with INTERNAL"),
        ([[1, OVER], [2, 3]], "ended with OVER"),
        ([[UNAVAILABLE], [1, 2, 3]], "ended with UNAVAILABLE"),
    ],
    ids=["a gap", "a gap at a drain", "a repeat at a drain", "another order", "another end", "an end without a reason", "no stream at first"],
)
async def test_what_is_a_fault(streams: Sequence[Sequence[int | str]], fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without a pause the fake streams never wait, so everything is told long before the limit, which only a gap reaches.
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0)
    if fault.endswith("was not told"):
        monkeypatch.setattr(module, "TOLD_WITHIN_SECONDS", 0.3)
    (found,), _ = await _faults(*streams)
    assert fault in found
