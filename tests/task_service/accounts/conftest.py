"""The deletion of accounts with its storage: users with tasks, and their events as auth_service logs them."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import pytest

from auth_service.events.repository import PostgresEvents
from servicekit.access.revocations import EventKind, EventPage
from servicekit.errors import DependencyUnavailable
from servicekit.stores.postgres import Database
from task_service.accounts.domain import Removed
from task_service.accounts.repository import PostgresAccountRows
from task_service.accounts.service import DeletedAccounts
from task_service.tasks.domain import Actor
from task_service.tasks.repository import PostgresTasks
from tests.task_service.conftest import FIELDS, insert


class Rows(PostgresAccountRows):
    """The rows of accounts. Records the removals, and fails once `fail_at` removals are recorded."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.removed: list[int] = []
        self.fail_at: int | None = None

    async def remove_account(self, user_id: UUID, limit: int) -> Removed:
        if self.fail_at is not None and len(self.removed) >= self.fail_at:
            raise DependencyUnavailable("PostgreSQL")
        removed = await super().remove_account(user_id, limit)
        self.removed.append(removed.rows)
        return removed


class Events:
    """auth_service's events, read from its table, `page` at a time, as long as `fail` is not set."""

    def __init__(self, database: Database, page: int = 1000) -> None:
        self._accounts = PostgresEvents(database)
        self.page = page
        self.fail = False
        self.asked: list[int] = []

    async def list_events(self, *, after: int, max_age_seconds: float | None = None, kind: EventKind | None = None) -> EventPage:
        assert (max_age_seconds, kind) == (None, EventKind.USER_DELETED)
        self.asked.append(after)
        if self.fail:
            raise DependencyUnavailable("auth_service")
        page = await self._accounts.list_events(after=after, kind=kind)
        if len(page.events) <= self.page:
            return page
        return EventPage(page.events[: self.page], page.events[self.page - 1].number, more=True, epoch=page.epoch)


class Removal:
    """The work under test, and its users, rows and events."""

    def __init__(self, database: Database, tasks: PostgresTasks) -> None:
        self.database, self.tasks = database, tasks
        self.rows, self.events = Rows(database), Events(database)
        self.work = DeletedAccounts(self.events, self.rows)

    async def user(self, count: int = 3) -> Actor:
        """Returns a new user with `count` tasks."""
        actor = Actor(uuid4(), uuid4(), "")
        for _ in range(count):
            await insert(self.tasks, actor, FIELDS)
        return actor

    async def delete(self, *actors: Actor) -> None:
        """Logs an account's deletion like auth_service, followed by an event of the other kind."""
        for actor in actors:
            await self.database.fetchrow("SELECT auth.log_event(2::smallint, $1, NULL)", actor.user_id)
            await self.database.fetchrow("SELECT auth.log_event(1::smallint, $1, $2)", actor.user_id, actor.session_id)

    async def left(self, actor: Actor) -> tuple[int, int]:
        """Returns the numbers of the user's tasks and changes."""
        sql = "SELECT (SELECT count(*) FROM task.tasks WHERE user_id = $1), (SELECT count(*) FROM task.changes WHERE user_id = $1)"
        row = await self.database.fetchrow(sql, actor.user_id)
        assert row is not None
        return row[0], row[1]

    async def position(self) -> int:
        return (await self.rows.get_deletions())[0]

    async def epoch(self) -> str:
        row = await self.database.fetchrow("SELECT epoch::text FROM auth.event_counter")
        assert row is not None
        return str(row[0])

    async def last_number(self) -> int:
        row = await self.database.fetchrow("SELECT last_number FROM auth.event_counter")
        assert row is not None
        return int(row[0])


@pytest.fixture
async def removal(database: Database, tasks: PostgresTasks) -> AsyncIterator[Removal]:
    made = Removal(database, tasks)
    yield made
    made.rows.fail_at = None
    await made.work.round()


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection for transactions that stay open."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()
