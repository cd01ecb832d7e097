"""The use cases of a change log: to follow it, and to read the history of a task.

Must not import grpc, protobuf, asyncpg or redis: Protocols describe what it needs.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol
from uuid import UUID

from servicekit.errors import DependencyUnavailable, InvalidPageToken, TimeLimitExceeded
from servicekit.identity import Identity
from servicekit.rpc.paging import Key
from task_service.feed.domain import Change, Changes, History, WatchEvent
from task_service.feed.errors import InvalidResumeToken, ResumeTokenExpired
from task_service.feed.pace import Pace
from task_service.feed.watching import ChangeLog, Watch
from task_service.tasks.domain import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, Place, Task
from task_service.tasks.errors import TaskNotFound
from task_service.tasks.pages import fitting
from task_service.tasks.service import Tokens

CHANGES_AT_ONCE: Final = 100
# The first read of a stream. Most streams have fewer to read.
FIRST_CHANGES: Final = 16
# More than the number of any change.
LAST_NUMBER: Final = 2**62


class Streams(Protocol):
    """The open streams of this process: see task_service.feed.watching.Watches."""

    def watch(self, identity: Identity) -> AbstractContextManager[Watch]:
        """Registers a stream for as long as the context lasts. Raises ServiceStopping, TooManyWatches."""


class FeedService:
    """Lets clients follow their user's change log."""

    def __init__(self, log: ChangeLog, streams: Streams, resume_tokens: Tokens, page_tokens: Tokens) -> None:
        self._log = log
        self._streams = streams
        self._resume_tokens = resume_tokens
        self._page_tokens = page_tokens
        self._pace = Pace()

    async def watch_tasks(self, identity: Identity, resume_token: str, *, show_projects: bool = False) -> AsyncGenerator[WatchEvent, None]:
        """Yields a checkpoint, and then every change after the resume token, or from now on if the token is empty: in order, each exactly once.

        Without `show_projects` it leaves out the changes of projects.

        While nothing changes, it yields a checkpoint every HEARTBEAT_SECONDS. It ends only by raising InvalidResumeToken, ResumeTokenExpired,
        TooManyWatches, TokenInvalid, ServiceStopping or DependencyUnavailable.
        """
        place = self._open(identity.user_id, resume_token) if resume_token else None
        with self._streams.watch(identity) as watch:
            place = await self._beginning(identity.user_id, place)
            yield self._event(identity.user_id, None, place)
            limit = FIRST_CHANGES
            while True:
                async with self._pace.page(identity.user_id) as page:
                    found = await self._next(identity.user_id, place.seq, limit)
                    _require_whole(place, found)
                    watch.last_seq, watch.epoch = found.last_seq, found.epoch
                    for change in found.changes:
                        watch.check()
                        place = Place(place.epoch, change.seq)
                        page.sends(change)
                        if show_projects or isinstance(change.subject, Task):
                            yield self._event(identity.user_id, change, place)
                # If few changes fit into one read, PostgreSQL would look at a hundred for each of them.
                limit = min(max(FIRST_CHANGES, 2 * len(found.changes)), CHANGES_AT_ONCE)
                # A heartbeat needs no read of the log, because a new change wakes the watch.
                while place.seq == found.last_seq and not await watch.wait():
                    yield self._event(identity.user_id, None, place)

    async def _next(self, user_id: UUID, after: int, limit: int) -> Changes:
        """Reads the log for a stream that has begun. If a read takes too long, the stream ends with the status that means: resume."""
        try:
            return await self._log.list(user_id, after, limit)
        except TimeLimitExceeded as error:
            raise DependencyUnavailable("PostgreSQL") from error

    async def _beginning(self, user_id: UUID, place: Place | None) -> Place:
        """Returns the place to begin at: the given one, or the end of the log. Raises ResumeTokenExpired."""
        found = await self._log.list(user_id, None if place is None else place.seq, 1)
        if place is None:
            return Place(found.epoch, found.last_seq)
        _require_whole(place, found)
        return place

    async def list_task_changes(self, user_id: UUID, task_id: UUID, page_size: int, page_token: str) -> History:
        """Returns a page of the task's history. A `page_size` of 0 means DEFAULT_PAGE_SIZE. Raises TaskNotFound and InvalidPageToken."""
        size = min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        query = ["ListTaskChanges", str(user_id), str(task_id)]
        before = _number(self._page_tokens.open(page_token, query)) if page_token else LAST_NUMBER
        # Reads one change more than the page has, to know whether another page follows.
        found = await self._log.list_of_task(user_id, task_id, before, size + 1)
        if found is None:
            raise TaskNotFound
        changes = fitting(found[:size], lambda change: change.task)
        return History(changes, "" if len(changes) == len(found) else self._page_tokens.seal([changes[-1].seq], query))

    def token(self, user_id: UUID, place: Place) -> str:
        """Returns the resume token of a place."""
        return self._resume_tokens.seal([place.epoch, place.seq], _of(user_id))

    def _event(self, user_id: UUID, change: Change | None, place: Place) -> WatchEvent:
        return WatchEvent(change, self.token(user_id, place))

    def _open(self, user_id: UUID, token: str) -> Place:
        match self._resume_tokens.open(token, _of(user_id)):
            case [str(epoch), int(seq)]:
                return Place(epoch, seq)
        raise InvalidResumeToken


def _require_whole(place: Place, found: Changes) -> None:
    """Raises ResumeTokenExpired if changes after the place are no longer stored, or if the place is in another log.

    Numbers have no gaps, so a gap means that changes were deleted. A place in another log has another epoch, or a number beyond the last one.
    """
    seqs = [change.seq for change in found.changes]
    is_next = seqs == list(range(place.seq + 1, place.seq + 1 + len(seqs)))
    if found.epoch != place.epoch or place.seq > found.last_seq or not is_next or (not seqs and place.seq < found.last_seq):
        raise ResumeTokenExpired


def _number(keys: Sequence[Key]) -> int:
    match keys:
        case [int(number)]:
            return number
    raise InvalidPageToken


def _of(user_id: UUID) -> Sequence[Key]:
    return ["WatchTasks", str(user_id)]
