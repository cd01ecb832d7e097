"""Clients that use the system during the campaign and record every answer, to compare the answers with the database at the end."""

import asyncio
import itertools
import random
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import asyncpg

from tests.support.accounts import Account
from tests.support.ledger import Ledger
from tests.support.load import Client
from tests.support.task_api import CallFailed, Seen, TaskApi

# The pause of a reader that has nothing to read yet.
IDLE_SECONDS: Final = 0.05
CHANGES: Final = "SELECT seq, request_id, task_id, version, snapshot ->> 'title' AS title FROM task.changes WHERE user_id = $1 ORDER BY seq"


@dataclass(slots=True)
class Witness:
    """One user: one client creates, changes and deletes tasks, other clients read them."""

    account: Account
    api: TaskApi
    rng: random.Random
    ledger: Ledger = field(default_factory=Ledger)
    # By request id: the writes that were answered, and those whose outcome is unknown.
    answered: dict[str, Seen | None] = field(default_factory=dict)
    unanswered: set[str] = field(default_factory=set)
    tasks: list[str] = field(default_factory=list)
    deleted: set[str] = field(default_factory=set)
    # Tasks whose deletion was not answered: they may exist, be deleted, or be deleted later.
    doubtful: set[str] = field(default_factory=set)

    def clients(self) -> list[Client]:
        """Returns one writer and two readers."""
        numbers = itertools.count()

        async def write(request_id: str) -> None:
            await self._write(f"change {next(numbers)}", request_id)

        return [[("write", write)], [("read", self._read)], [("read", self._read), ("list", self.api.list), ("read deleted", self._read_deleted)]]

    async def _write(self, title: str, request_id: str) -> None:
        drawn = self.rng.random()
        if drawn < 0.2 or not self.tasks:
            seen = await self._answer(self.api.create(title, request_id), request_id)
            self.ledger.wrote(seen)
            self.tasks.append(seen.id)
        elif drawn < 0.9:
            seen = await self._answer(self.api.rename(self.rng.choice(self.tasks), title, request_id), request_id)
            self.ledger.wrote(seen)
        else:
            await self._delete(self.tasks.pop(self.rng.randrange(len(self.tasks))), request_id)

    async def _delete(self, task_id: str, request_id: str) -> None:
        self.doubtful.add(task_id)

        async def call() -> None:
            await self.api.delete(task_id, request_id)

        await self._answer(call(), request_id)
        self.doubtful.discard(task_id)
        self.deleted.add(task_id)

    async def _answer(self, call: Awaitable[Seen] | Awaitable[None], request_id: str) -> Seen:
        self.unanswered.add(request_id)
        answer = await call
        self.unanswered.discard(request_id)
        self.answered[request_id] = answer
        return answer  # type: ignore[return-value]  # None only for a deletion, which does not use it

    async def _read(self, request_id: str) -> None:
        if not self.tasks:
            await asyncio.sleep(IDLE_SECONDS)
            return
        task_id = self.rng.choice(self.tasks)
        at_least = self.ledger.version(task_id)
        try:
            self.ledger.read(await self.api.get(task_id, request_id), at_least)
        except CallFailed as failed:
            if failed.code != "NOT_FOUND":
                raise
            # The task may have been deleted between the request and the answer.
            if task_id not in self.doubtful | self.deleted:
                self.ledger.contradictions.append(f"{task_id}: not found although it was acknowledged")

    async def _read_deleted(self, request_id: str) -> None:
        if not self.deleted:
            await asyncio.sleep(IDLE_SECONDS)
            return
        task_id = self.rng.choice(sorted(self.deleted))
        try:
            await self.api.get(task_id, request_id)
        except CallFailed as failed:
            if failed.code != "NOT_FOUND":
                raise
        else:
            self.ledger.contradictions.append(f"{task_id}: read after its deletion was acknowledged")

    async def contradictions(self, database: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
        """Returns the contradictions between the answers, the change log and the tasks in the database."""
        found = list(self.ledger.contradictions)
        user = UUID(self.account.id)
        changes = await database.fetch(CHANGES, user)
        last_seq = await database.fetchval("SELECT last_seq FROM task.counters WHERE user_id = $1", user)
        if [change["seq"] for change in changes] != list(range(1, (last_seq or 0) + 1)):
            found.append(f"{user}: the change log is not 1 to {last_seq} without a gap")
        by_request = {change["request_id"]: change for change in changes}
        if len(by_request) != len(changes):
            found.append(f"{user}: a request was carried out more than once")
        found += [f"{id_}: in the change log, but sent by no client" for id_ in by_request.keys() - self.answered.keys() - self.unanswered]
        for request_id, seen in self.answered.items():
            change = by_request.get(request_id)
            if change is None:
                found.append(f"{request_id}: acknowledged but lost: {seen}")
            elif seen is not None and Seen(str(change["task_id"]), change["title"], change["version"]) != seen:
                found.append(f"{request_id}: answered {seen} and logged {dict(change)}")
        last = {str(change["task_id"]): change["version"] for change in changes}
        stored = await database.fetch("SELECT id, version FROM task.tasks WHERE user_id = $1", user)
        if {str(row["id"]): row["version"] for row in stored} != last:
            found.append(f"{user}: the tasks differ from the change log")
        return found
