"""The use cases of tasks. Imports neither grpc, protobuf, asyncpg nor redis: what it needs of them is a Protocol here."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from servicekit.identity import Identity
from servicekit.paging import Key
from servicekit.retries import Idempotency
from task_service.domain import DEFAULT_PAGE_SIZE, MAX_PAGE_BYTES, MAX_PAGE_SIZE, Actor, Change, Changes, Listed, Place, Task, TaskFields
from task_service.errors import InvalidResumeToken, ResumeTokenExpired, TaskNotFound
from task_service.filtering import ListQuery, Position, from_token, position_of, to_token
from task_service.watching import ChangeLog, Watch
from task_service.writes import Creation, Deletion, Operations, Undeletion, Update, Written

CHANGES_AT_ONCE = 100


class TaskRepository(Protocol):
    """Where tasks are kept. Every write and its rows in the change log commit together or not at all. All raise DependencyUnavailable."""

    async def find(self, user_id: UUID, task_id: UUID) -> Task | None:
        """The task, or None if the user has none with that id. Never older than an acknowledged write."""

    async def find_all(self, user_id: UUID, task_ids: Sequence[UUID]) -> Mapping[UUID, Task]:
        """Those of the tasks that there are, by their ids."""

    async def list(self, query: ListQuery, after: Position | None, skip: int, limit: int, *, with_total: bool = False) -> Listed:
        """At most `limit` tasks of the query, in its order, ties by id, from `skip` behind `after`.

        Of the same moment are the place in the user's change log and, if wanted, the total, which takes time in proportion to what it counts.
        """

    async def write(self, actor: Actor, operations: Operations, idempotency: Idempotency | None = None, *, unfenced: bool = False) -> Written:
        """Does all of the operations, one after the other, or none.

        Under a key that was used for the same request in the last 24 hours it does nothing, and answers as then. Raises WriteRefused.
        `unfenced`: a cache over this one could not be told of it beforehand, which is to be remembered.
        """

    async def list_unfenced(self, seconds: float, limit: int) -> Sequence[tuple[UUID, UUID]]:
        """At most `limit` tasks that were written unfenced in the last `seconds`: user and id."""


class Tokens(Protocol):
    """Makes and reads tokens that tell a place: see servicekit.paging.PlaceTokens."""

    def seal(self, position: Sequence[Key], query: Sequence[Key]) -> str:
        """A token."""

    def open(self, token: str, query: Sequence[Key]) -> Sequence[Key]:
        """What a token was made of. Raises InvalidPageToken, or InvalidResumeToken."""


class Streams(Protocol):
    """Those who watch: see task_service.watching.Watches."""

    def watch(self, identity: Identity) -> AbstractContextManager[Watch]:
        """A stream's place among them. Raises ServiceStopping, Overloaded."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of tasks. The page token is empty on the last. `place` and `total_size` are those of Listed."""

    tasks: Sequence[Task]
    next_page_token: str
    place: Place
    total_size: int | None = None


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """What a watcher is told: a change, or None for a checkpoint; and where to go on behind it."""

    change: Change | None
    resume_token: str


class TaskService:
    """Every method acts for one user and sees only that user's tasks."""

    def __init__(self, repository: TaskRepository, page_tokens: Tokens, new_id: Callable[[], UUID], announce: Callable[[UUID], None]) -> None:
        """`announce` says that a user's tasks have changed."""
        self._repository = repository
        self._page_tokens = page_tokens
        self._new_id = new_id
        self._announce = announce

    async def get_task(self, user_id: UUID, task_id: UUID) -> Task:
        """Raises TaskNotFound."""
        task = await self._repository.find(user_id, task_id)
        if task is None:
            raise TaskNotFound
        return task

    async def batch_get_tasks(self, user_id: UUID, task_ids: Sequence[UUID]) -> Sequence[Task]:
        """The tasks in the order of the ids. Raises TaskNotFound for the first that there is not."""
        found = await self._repository.find_all(user_id, task_ids)
        for index, task_id in enumerate(task_ids):
            if task_id not in found:
                raise TaskNotFound(index)
        return [found[task_id] for task_id in task_ids]

    async def list_tasks(self, query: ListQuery, *, page_size: int, page_token: str, skip: int, with_total: bool = False) -> Page:
        """A page; `page_size` 0 is the default one, and too large a one counts as the largest. Raises InvalidPageToken."""
        size = min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        after = from_token(self._page_tokens.open(page_token, query.identity()), query.order) if page_token else None
        # One more than the page has, to see whether another follows.
        listed = await self._repository.list(query, after, skip, size + 1, with_total=with_total)
        tasks = _fitting(listed.tasks[:size])
        complete = len(tasks) == len(listed.tasks)
        token = "" if complete else self._page_tokens.seal(to_token(position_of(tasks[-1], query.order)), query.identity())
        return Page(tasks, token, listed.place, listed.total_size)

    async def create_tasks(self, actor: Actor, tasks: Sequence[TaskFields], idempotency: Idempotency | None) -> Written:
        """Makes tasks. As all writes: all or none, and raises WriteRefused."""
        return await self._write(actor, [Creation(self._new_id(), fields) for fields in tasks], idempotency)

    async def update_tasks(self, actor: Actor, updates: Sequence[Update], idempotency: Idempotency | None) -> Written:
        """Sets the fields in each mask and no others."""
        return await self._write(actor, updates, idempotency)

    async def delete_tasks(self, actor: Actor, deletions: Sequence[Deletion], idempotency: Idempotency | None) -> Written:
        """Moves tasks to the bin."""
        return await self._write(actor, deletions, idempotency)

    async def undelete_task(self, actor: Actor, undeletion: Undeletion, idempotency: Idempotency | None) -> Written:
        """Brings a task back from the bin."""
        return await self._write(actor, [undeletion], idempotency)

    async def _write(self, actor: Actor, operations: Operations, idempotency: Idempotency | None) -> Written:
        written = await self._repository.write(actor, operations, idempotency)
        if not written.replayed:
            self._announce(actor.user_id)
        return written


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


def _fitting(tasks: Sequence[Task]) -> Sequence[Task]:
    """As many of the first tasks as fit on a page, and at least one."""
    size = 0
    for count, task in enumerate(tasks):
        size += task.text_bytes
        if size > MAX_PAGE_BYTES and count > 0:
            return tasks[:count]
    return tasks
