"""The event log in PostgreSQL."""

from datetime import timedelta
from typing import Final

import asyncpg
import structlog

from servicekit.access.revocations import Event, EventKind, EventPage
from servicekit.stores.postgres import Database
from servicekit.stores.upkeep import Removal

MAX_EVENTS: Final = 1000
# Longer than any access token lives, so that a replica that reads the events of one token lifetime misses none. Events of deleted accounts are kept
# forever: task_service must process all of them, however long it was down.
EVENTS_KEPT: Final = "1 hour"

# One statement reads the counter and the events from one snapshot, so all events up to `last_number` are visible. It compares the server in the same
# statement, so no events of another server are returned under the epoch of this one.
LIST_EVENTS: Final = """
SELECT counter.epoch, counter.server, (SELECT auth.server()) AS current_server, counter.last_number,
       event.number, event.kind, event.user_id, event.session_id, event.created_at
  FROM auth.event_counter AS counter LEFT JOIN LATERAL (
    SELECT * FROM auth.events
     WHERE number > $1 AND ($2::interval IS NULL OR created_at > now() - $2) AND ($3::smallint IS NULL OR kind = $3)
     ORDER BY number LIMIT $4
  ) AS event ON true
 ORDER BY event.number
"""
FOLLOW_SERVER: Final = "SELECT auth.follow_server()"
REMOVE_EVENTS: Final = f"""
WITH removed AS (
    DELETE FROM auth.events WHERE number IN (
        SELECT number FROM auth.events WHERE kind = 1 AND created_at < now() - interval '{EVENTS_KEPT}' LIMIT $1 FOR UPDATE SKIP LOCKED)
    RETURNING 1
) SELECT count(*) FROM removed
"""  # noqa: S608
REMOVALS: Final = (Removal(REMOVE_EVENTS),)

log = structlog.get_logger()


class PostgresEvents:
    """An EventSource (see servicekit.access.revocations). Each call is one round trip, and three after a failover of PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_events(self, *, after: int, max_age_seconds: float | None = None, kind: EventKind | None = None) -> EventPage:
        """See EventSource.list_events."""
        age = None if max_age_seconds is None else timedelta(seconds=max_age_seconds)
        rows = await self._database.fetch(LIST_EVENTS, after, age, kind, MAX_EVENTS + 1)
        if (before := rows[0]["server"]) != (server := rows[0]["current_server"]):
            log.warning("database_failover", before=before, after=server)
            await self._database.fetch(FOLLOW_SERVER)
            rows = await self._database.fetch(LIST_EVENTS, after, age, kind, MAX_EVENTS + 1)
        epoch = str(rows[0]["epoch"])
        events = [_event(row) for row in rows if row["number"] is not None]
        if len(events) > MAX_EVENTS:
            return EventPage(events[:MAX_EVENTS], events[MAX_EVENTS - 1].number, more=True, epoch=epoch)
        return EventPage(events, rows[0]["last_number"], more=False, epoch=epoch)


def _event(row: "asyncpg.Record") -> Event:
    return Event(row["number"], EventKind(row["kind"]), row["user_id"], row["session_id"], row["created_at"].timestamp())
