"""The use case of following a change log. Imports neither grpc, protobuf, asyncpg nor redis: what it needs of them is a Protocol."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol
from uuid import UUID

from servicekit.identity import Identity
from servicekit.rpc.paging import Key
from task_service.feed.domain import Change, Changes, WatchEvent
from task_service.feed.errors import InvalidResumeToken, ResumeTokenExpired
from task_service.feed.watching import ChangeLog, Watch
from task_service.tasks.domain import Place
from task_service.tasks.service import Tokens

CHANGES_AT_ONCE = 100


class Streams(Protocol):
    """Those who watch: see task_service.feed.watching.Watches."""

    def watch(self, identity: Identity) -> AbstractContextManager[Watch]:
        """A stream's place among them. Raises ServiceStopping, Overloaded."""


class FeedService:
    """The users' change logs, as clients follow them."""

    def __init__(self, log: ChangeLog, streams: Streams, resume_tokens: Tokens) -> None:
        self._log = log
        self._streams = streams
        self._resume_tokens = resume_tokens

    async def watch_tasks(self, identity: Identity, resume_token: str) -> AsyncGenerator[WatchEvent, None]:
        """A checkpoint, and then every change behind the token, or from now on if it is empty: in order, none left out and none twice.

        It ends only by raising: InvalidResumeToken, ResumeTokenExpired, Overloaded, TokenInvalid, ServiceStopping, DependencyUnavailable.
        """
        place = self._open(identity.user_id, resume_token) if resume_token else None
        with self._streams.watch(identity) as watch:
            place = await self._beginning(identity.user_id, place)
            yield self._event(identity.user_id, None, place)
            while True:
                found = await self._log.list(identity.user_id, place.seq, CHANGES_AT_ONCE)
                _require_whole(place, found)
                watch.last_seq = found.last_seq
                for change in found.changes:
                    watch.check()
                    place = Place(place.epoch, change.seq)
                    yield self._event(identity.user_id, change, place)
                # A sign of life needs no look: what there is to see wakes the watch.
                while place.seq == found.last_seq and not await watch.wait():
                    yield self._event(identity.user_id, None, place)

    async def _beginning(self, user_id: UUID, place: Place | None) -> Place:
        """The place to begin at: the given one, or behind all that there is. Raises ResumeTokenExpired."""
        found = await self._log.list(user_id, None if place is None else place.seq, 1)
        if place is None:
            return Place(found.epoch, found.last_seq)
        _require_whole(place, found)
        return place

    def token(self, user_id: UUID, place: Place) -> str:
        """The resume token of a place."""
        return self._resume_tokens.seal([place.epoch, place.seq], _of(user_id))

    def _event(self, user_id: UUID, change: Change | None, place: Place) -> WatchEvent:
        return WatchEvent(change, self.token(user_id, place))

    def _open(self, user_id: UUID, token: str) -> Place:
        match self._resume_tokens.open(token, _of(user_id)):
            case [str(epoch), int(seq)]:
                return Place(epoch, seq)
        raise InvalidResumeToken


def _require_whole(place: Place, found: Changes) -> None:
    """Raises ResumeTokenExpired if a part of the log behind the place is not kept any more, or it is another log. Numbers have no gap."""
    seqs = [change.seq for change in found.changes]
    is_next = seqs == list(range(place.seq + 1, place.seq + 1 + len(seqs)))
    if found.epoch != place.epoch or place.seq > found.last_seq or not is_next or (not seqs and place.seq < found.last_seq):
        raise ResumeTokenExpired


def _of(user_id: UUID) -> Sequence[Key]:
    return ["WatchTasks", str(user_id)]
