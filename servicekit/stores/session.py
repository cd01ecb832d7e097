"""What a connection asks of its session in PostgreSQL: the settings that it sends when it starts, and whether its statements have names.

This is the only place that decides it. A session of PostgreSQL's own accepts both. PgBouncer in transaction mode lends a session to many clients in
turn, so it rejects startup settings that it cannot carry from one session to the next, and only newer versions know named statements.
"""

from enum import StrEnum
from typing import Any, Final

import structlog

# The limits that the server enforces, even if the client has died.
TIMEOUTS: Final = ("statement_timeout", "idle_in_transaction_session_timeout")
GET_UNLIMITED: Final = "SELECT name FROM unnest($1::text[]) AS name WHERE current_setting(name) = '0'"
# With this, Citus refuses a statement that PostgreSQL was told to plan without its parameters.
GENERIC_PLAN_REFUSED: Final = "could not create distributed plan"
# PostgreSQL's own name of the encoding. asyncpg sends another one, which PgBouncer before 1.20 sets anew before and after each transaction.
ENCODING: Final = "UTF8"

log = structlog.get_logger()


class Pooler(StrEnum):
    """What the connections of a service lead to."""

    # PostgreSQL, or a pooler that gives each connection a session of its own.
    NONE = "none"
    # PgBouncer in transaction mode, of any version. Statements have no names, so that PostgreSQL parses and plans each of them every time.
    PGBOUNCER = "pgbouncer"
    # PgBouncer ≥ 1.21 in transaction mode, with `max_prepared_statements` above 0.
    PGBOUNCER_PREPARED = "pgbouncer-prepared"


def startup_settings(pooler: Pooler, application_name: str, timeout_seconds: float, *, generic_plans: bool = False) -> dict[str, str]:
    """Returns the settings that a connection sends when it starts. PgBouncer refuses all but two, so the role must have the others."""
    if pooler is not Pooler.NONE:
        return {"application_name": application_name, "client_encoding": ENCODING}
    milliseconds = str(round(timeout_seconds * 1000))
    settings = {"application_name": application_name, **dict.fromkeys(TIMEOUTS, milliseconds)}
    return settings | ({"plan_cache_mode": "force_generic_plan"} if generic_plans else {})


def named_statements(pooler: Pooler, cache_size: int) -> int:
    """Returns how many prepared statements a connection keeps by name."""
    return 0 if pooler is Pooler.PGBOUNCER else cache_size


async def report_unlimited(connection: Any) -> None:
    """Logs a warning with the timeouts that the role lacks. Without them, the statement of a client that has died runs to its end."""
    names = [name for (name,) in await connection.fetch(GET_UNLIMITED, TIMEOUTS)]
    if names:
        log.warning("database_role_unlimited", settings=names)
