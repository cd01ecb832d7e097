"""The event log in PostgreSQL."""

from datetime import timedelta
from typing import Final

import asyncpg

from servicekit.access.revocations import Event, EventKind, EventPage
from servicekit.stores.postgres import Database
from servicekit.stores.upkeep import Removal

MAX_EVENTS: Final = 1000
# Longer than any access token lives, so that a replica that reads the events of one token lifetime misses none. Events of deleted accounts are kept
# forever: task_service must process all of them, however long it was down.
EVENTS_KEPT: Final = "1 hour"

# One statement reads the counter and the events from one snapshot, so all events up to `last_number` are visible.
LIST_EVENTS: Final = """
SELECT counter.last_number, event.number, event.kind, event.user_id, event.session_id, event.created_at
  FROM auth.event_counter AS counter LEFT JOIN LATERAL (
    SELECT * FROM auth.events
     WHERE number > $1 AND ($2::interval IS NULL OR created_at > now() - $2) AND ($3::smallint IS NULL OR kind = $3)
     ORDER BY number LIMIT $4
  ) AS event ON true
 ORDER BY event.number
"""
REMOVE_EVENTS: Final = f"""
WITH removed AS (
    DELETE FROM auth.events WHERE number IN (
        SELECT number FROM auth.events WHERE kind = 1 AND created_at < now() - interval '{EVENTS_KEPT}' LIMIT $1 FOR UPDATE SKIP LOCKED)
    RETURNING 1
) SELECT count(*) FROM removed
"""  # noqa: S608
REMOVALS: Final = (Removal(REMOVE_EVENTS),)


class PostgresEvents:
    """An EventSource (see servicekit.access.revocations). Each call is one round trip."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_events(self, *, after: int, max_age_seconds: float | None = None, kind: EventKind | None = None) -> EventPage:
        """See EventSource.list_events."""
        age = None if max_age_seconds is None else timedelta(seconds=max_age_seconds)
        rows = await self._database.fetch(LIST_EVENTS, after, age, kind, MAX_EVENTS + 1)
        events = [_event(row) for row in rows if row["number"] is not None]
        if len(events) > MAX_EVENTS:
            return EventPage(events[:MAX_EVENTS], events[MAX_EVENTS - 1].number, more=True)
        return EventPage(events, rows[0]["last_number"], more=False)


def _event(row: "asyncpg.Record") -> Event:
    return Event(row["number"], EventKind(row["kind"]), row["user_id"], row["session_id"], row["created_at"].timestamp())
