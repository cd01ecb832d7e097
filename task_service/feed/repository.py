"""Reads the change log from PostgreSQL."""

from collections.abc import Collection, Mapping, Sequence
from itertools import takewhile
from typing import Any, Final
from uuid import UUID

import orjson

from servicekit.stores.postgres import Database
from task_service.feed.domain import Change, ChangeKind, Changes, TaskChange
from task_service.projects.rows import project_of_snapshot
from task_service.query.list_statement import COLUMN_NAMES
from task_service.tasks.rows import of_snapshot

# The session of the server's own changes: see task.fire_reminders.
NOBODY: Final = UUID(int=0)
# A newer version that runs beside this one, or ran before it, may have logged others.
KNOWN_KINDS: Final = frozenset(ChangeKind)
# A stream holds as much while its client reads. A task with the longest text has 45 kB.
MAX_CHANGES_BYTES: Final = 128 * 1024
# One statement reads the changes, the last number and the epoch from one snapshot. If there is no change, or $2 is null, it returns one row, whose
# change is null.
# $4 is the maximum size of the snapshots together, as text. The first one may be larger. Of a change of a project it returns the snapshot as it is.
LIST_CHANGES: Final = f"""
SELECT feed.epoch, coalesce(counter.last_seq, 0) AS last_seq, change.seq, change.kind,
       CASE WHEN change.is_project THEN change.snapshot END AS project, {", ".join(f"task.{name}" for name in COLUMN_NAMES)}
  FROM task.feed AS feed
  LEFT JOIN task.counters AS counter ON counter.user_id = $1
  LEFT JOIN LATERAL (
    SELECT seq, kind, is_project, snapshot FROM (
        SELECT seq, kind, is_project, snapshot, sum(octet_length(snapshot::text)) OVER (ORDER BY seq) AS bytes, min(seq) OVER () AS first_seq FROM (
            SELECT seq, kind, is_project, snapshot FROM task.changes WHERE user_id = $1 AND seq > $2 AND seq <= $2 + $3 ORDER BY seq
        ) AS few
    ) AS measured WHERE bytes <= $4 OR seq = first_seq
  ) AS change ON true
  LEFT JOIN LATERAL jsonb_populate_record(NULL::task.tasks, CASE WHEN NOT change.is_project THEN change.snapshot END) AS task ON true
 ORDER BY change.seq
"""  # noqa: S608
# Newest first. If the task has no changes before $3, it returns one row, whose change is null; no row if there is no task.
LIST_OF_TASK: Final = f"""
SELECT change.seq, change.kind, change.at, change.changed_fields, change.session_id, change.by_api_token, change.actor_name,
       {", ".join(f"task.{name}" for name in COLUMN_NAMES)}
  FROM (SELECT FROM task.tasks WHERE user_id = $1 AND id = $2) AS found
  LEFT JOIN LATERAL (
    SELECT seq, kind, at, changed_fields, session_id, by_api_token, actor_name, snapshot FROM task.changes
     WHERE user_id = $1 AND task_id = $2 AND seq < $3 AND kind IN ({", ".join(str(kind.value) for kind in ChangeKind)}) ORDER BY seq DESC LIMIT $4
  ) AS change ON true
  LEFT JOIN LATERAL jsonb_populate_record(NULL::task.tasks, change.snapshot) AS task ON true
 ORDER BY change.seq DESC
"""  # noqa: S608
GET_EPOCH: Final = "SELECT epoch FROM task.feed"
LIST_MOVED: Final = """
SELECT counter.user_id, counter.last_seq
  FROM unnest($1::uuid[], $2::bigint[]) AS known (user_id, last_seq) JOIN task.counters AS counter USING (user_id)
 WHERE counter.last_seq <> known.last_seq
"""


class PostgresChanges:
    """A ChangeLog (see task_service.feed.watching). Each method is one round trip."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, user_id: UUID, after: int | None, limit: int) -> Changes:
        """See ChangeLog.list."""
        rows = await self._database.fetch(LIST_CHANGES, user_id, after, limit, MAX_CHANGES_BYTES)
        changes = [_change(row) for row in takewhile(_is_known, (row for row in rows if row[2] is not None))]
        return Changes(str(rows[0][0]), rows[0][1], changes)

    async def list_of_task(self, user_id: UUID, task_id: UUID, before: int, limit: int) -> Sequence[TaskChange] | None:
        """See ChangeLog.list_of_task."""
        rows = await self._database.fetch(LIST_OF_TASK, user_id, task_id, before, limit)
        return [_task_change(row) for row in rows if row[0] is not None] if rows else None

    async def get_epoch(self) -> str:
        """See ChangeLog.get_epoch."""
        row: Any = await self._database.fetchrow(GET_EPOCH)
        return str(row[0])

    async def list_moved(self, known: Mapping[UUID, int]) -> Sequence[tuple[UUID, int]]:
        """See ChangeLog.list_moved."""
        rows = await self._database.fetch(LIST_MOVED, _list(known.keys()), _list(known.values()))
        return [(row[0], row[1]) for row in rows]


def _is_known(row: Any) -> bool:
    return row[3] in KNOWN_KINDS


def _change(row: Any) -> Change:
    seq, kind, project = row[2:5]
    return Change(seq, ChangeKind(kind), of_snapshot(row[5:]) if project is None else project_of_snapshot(orjson.loads(project)))


def _task_change(row: Any) -> TaskChange:
    seq, kind, at, fields, session_id, by_api_token, name = row[:7]
    session = None if by_api_token or session_id == NOBODY else session_id
    return TaskChange(seq, ChangeKind(kind), at, fields, session, session_id if by_api_token else None, name or "", of_snapshot(row[7:]))


def _list(values: Collection[object]) -> Sequence[object]:
    return list(values)
