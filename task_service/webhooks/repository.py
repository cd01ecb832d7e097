"""Webhooks in PostgreSQL, for clients and for the sender. Each method is one round trip."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from servicekit.errors import TokenInvalid
from servicekit.rpc.retry import Idempotency
from servicekit.stores.postgres import Database
from task_service.feed.domain import ChangeKind
from task_service.projects.rows import project_of_snapshot
from task_service.query.list_statement import COLUMN_NAMES as TASK_COLUMN_NAMES
from task_service.tasks.domain import etag_of, version_of
from task_service.tasks.errors import IdempotencyKeyReused
from task_service.tasks.rows import of_snapshot
from task_service.webhooks.domain import (
    MAX_DELIVERIES,
    MAX_WEBHOOKS,
    SUCCEEDED,
    Attempt,
    Delivery,
    Key,
    Rotation,
    Settlement,
    Taken,
    Told,
    WaitingTest,
    Webhook,
    WebhookCreation,
    WebhookDeletion,
    WebhookFields,
    WebhookOperation,
    WebhookUpdate,
    WebhookWritten,
)
from task_service.webhooks.errors import TooManyWebhooks, WebhookChanged, WebhookNotFound, WebhookTestRunning

# The kinds of writes: see task.write_webhook.
KINDS: Final[Mapping[type[WebhookOperation], int]] = {WebhookCreation: 1, WebhookUpdate: 2, WebhookDeletion: 3, Rotation: 5}
# The error codes of task.write_webhook and task.request_test.
REFUSED: Final[Mapping[str, Callable[[], Exception]]] = {
    # An access token can outlive a deleted account by minutes.
    "TM001": TokenInvalid,
    "TM005": IdempotencyKeyReused,
    "TM030": WebhookNotFound,
    "TM031": partial(TooManyWebhooks, MAX_WEBHOOKS),
    "TM032": WebhookTestRunning,
}
CHANGED: Final = "TM003"

COLUMN_NAMES: Final = Webhook._fields
COLUMNS: Final = ", ".join(COLUMN_NAMES)
DELIVERY_COLUMNS: Final = ", ".join(Delivery._fields)
# SQL is assembled only from constants; values are always parameters.
FIND: Final = f"SELECT {COLUMNS} FROM task.webhooks WHERE user_id = $1 AND id = $2"  # noqa: S608
LIST: Final = f"SELECT {COLUMNS} FROM task.webhooks WHERE user_id = $1 ORDER BY id"  # noqa: S608
WRITE: Final = f"""
SELECT o_replayed, (o_webhook).secret, {", ".join(f"(o_webhook).{name}" for name in COLUMN_NAMES)}
  FROM task.write_webhook($1, $2, $3, $4, $5, $6)
"""  # noqa: S608
# One row, whose delivery is null, if the webhook has none; no row if there is no webhook.
LIST_DELIVERIES: Final = f"""
SELECT {", ".join(f"d.{name}" for name in Delivery._fields)} FROM (SELECT FROM task.webhooks WHERE user_id = $1 AND id = $2) AS found
  LEFT JOIN LATERAL (
    SELECT {DELIVERY_COLUMNS} FROM task.webhook_deliveries
     WHERE user_id = $1 AND webhook_id = $2 AND outcome >= {SUCCEEDED} AND sent_at > now() - interval '7 days' ORDER BY id DESC LIMIT {MAX_DELIVERIES}
  ) AS d ON true
"""  # noqa: S608
INSERT_TEST: Final = "SELECT task.request_test($1, $2, $3, $4)"
FIND_DELIVERY: Final = f"SELECT {DELIVERY_COLUMNS} FROM task.webhook_deliveries WHERE user_id = $1 AND webhook_id = $2 AND id = $3"  # noqa: S608
# Nothing encrypts with a key that is another one for long, so few rows are found, and no index helps.
LIST_SEALED: Final = """
SELECT user_id, id, secret, old_secret FROM task.webhooks
 WHERE substring(secret FROM 1 FOR 4) <> $1 OR substring(old_secret FROM 1 FOR 4) <> $1 LIMIT $2
"""
UPDATE_SEALED: Final = "UPDATE task.webhooks SET secret = $4, old_secret = $5 WHERE user_id = $1 AND id = $2 AND secret = $3"


class PostgresWebhooks:
    """A WebhookRepository (see task_service.webhooks.service)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, user_id: UUID, webhook_id: UUID) -> Webhook | None:
        """See WebhookRepository.find."""
        row = await self._database.fetchrow(FIND, user_id, webhook_id)
        return None if row is None else Webhook._make(row)

    async def list(self, user_id: UUID) -> Sequence[Webhook]:
        """See WebhookRepository.list."""
        return [Webhook._make(row) for row in await self._database.fetch(LIST, user_id)]

    async def write(self, user_id: UUID, operation: WebhookOperation, idempotency: Idempotency | None = None) -> WebhookWritten:
        """See WebhookRepository.write."""
        key, request_hash = (idempotency.key, idempotency.request_hash) if idempotency else (None, None)
        values = orjson.dumps(_to_operation(operation)).decode()
        sealed = operation.sealed if isinstance(operation, WebhookCreation | Rotation) else None
        row = await self._refusable(WRITE, user_id, KINDS[type(operation)], values, sealed, key, request_hash)
        replayed, secret, *columns = row
        return WebhookWritten(None if columns[0] is None else Webhook._make(columns), secret, replayed)

    async def list_deliveries(self, user_id: UUID, webhook_id: UUID) -> Sequence[Delivery] | None:
        """See WebhookRepository.list_deliveries."""
        rows = await self._database.fetch(LIST_DELIVERIES, user_id, webhook_id)
        return [Delivery._make(row) for row in rows if row[0] is not None] if rows else None

    async def insert_test(self, user_id: UUID, webhook_id: UUID, test_id: UUID, message: str) -> None:
        """See WebhookRepository.insert_test."""
        await self._refusable(INSERT_TEST, user_id, webhook_id, test_id, message)

    async def find_delivery(self, user_id: UUID, webhook_id: UUID, delivery_id: UUID) -> Delivery | None:
        """See WebhookRepository.find_delivery."""
        row = await self._database.fetchrow(FIND_DELIVERY, user_id, webhook_id, delivery_id)
        return None if row is None else Delivery._make(row)

    async def list_sealed(self, except_key_id: bytes, limit: int) -> Sequence[tuple[UUID, UUID, bytes, bytes | None]]:
        """See WebhookRepository.list_sealed."""
        return [(row[0], row[1], row[2], row[3]) for row in await self._database.fetch(LIST_SEALED, except_key_id, limit)]

    async def update_sealed(self, user_id: UUID, webhook_id: UUID, was: bytes, secret: bytes, old_secret: bytes | None) -> None:
        """See WebhookRepository.update_sealed."""
        await self._database.fetchrow(UPDATE_SEALED, user_id, webhook_id, was, secret, old_secret)

    async def _refusable(self, statement: str, *args: object) -> Any:
        try:
            (row,) = await self._database.fetch(statement, *args)
        except asyncpg.PostgresError as error:
            raise _refusal(error.sqlstate or "", str(error)) or error from error
        return row


def _to_operation(operation: WebhookOperation) -> Mapping[str, Any]:
    """Returns the operation in the form that task.write_webhook takes."""
    values: dict[str, Any] = {"id": str(operation.id)}
    if not isinstance(operation, WebhookCreation) and operation.etags is not None:
        values["versions"] = [version for version in map(version_of, operation.etags) if version is not None]
    match operation:
        case WebhookCreation(fields=fields):
            values |= _of_fields(fields)
        case WebhookUpdate(fields=fields, mask=mask):
            values |= _of_fields(fields) | {"mask": mask}
    return values


def _of_fields(fields: WebhookFields) -> dict[str, Any]:
    return {"url": fields.url, "description": fields.description, "event_types": fields.event_types, "state": fields.state}


def _refusal(code: str, message: str) -> Exception | None:
    """Returns the domain error for an error code, or None if it has another code."""
    if code == CHANGED:
        return WebhookChanged(etag_of(int(message.partition(" ")[2])))
    refused = REFUSED.get(code)
    return None if refused is None else refused()


# The worker may only call these functions: see migrations/0017_webhooks.sql.
LIST_DUE: Final = "SELECT o_user, o_id, o_failures FROM task.due_webhooks($1)"
TAKE: Final = f"""
SELECT o_url, o_event_types, o_secret, o_old_secret, o_version, o_failures, o_last, o_seq, o_kind, o_at, o_changed_fields, o_project,
       {", ".join(f"(o_task).{name}" for name in TASK_COLUMN_NAMES)}
  FROM task.take_webhook($1, $2, $3, $4, $5, $6)
"""  # noqa: S608
SETTLE: Final = "SELECT task.settle_webhook($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)"
RENEW: Final = "SELECT o_user, o_id FROM task.renew_webhooks($1, $2, $3, $4)"
LIST_TESTS: Final = "SELECT o_user, o_webhook, o_id FROM task.waiting_tests($1)"
TAKE_TEST: Final = "SELECT o_url, o_secret, o_old_secret, o_message, o_at FROM task.take_test($1, $2, $3)"
SETTLE_TEST: Final = "SELECT task.settle_test($1, $2, $3, $4, $5, $6, $7, $8)"


class PostgresLeases:
    """A LeaseStore (see task_service.webhooks.sending)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_due(self, limit: int) -> Sequence[tuple[Key, int]]:
        """See LeaseStore.list_due."""
        return [(Key(row[0], row[1]), row[2]) for row in await self._database.fetch(LIST_DUE, limit)]

    async def take(self, key: Key, lease: UUID, seconds: float, limit: int, max_bytes: int) -> Taken | None:
        """See LeaseStore.take."""
        rows = await self._database.fetch(TAKE, key.user_id, key.id, lease, seconds, limit, max_bytes)
        if not rows:
            return None
        url, event_types, secret, old_secret, version, failures = rows[0][:6]
        changes = [_told(row) for row in rows]
        return Taken(url, event_types, _secrets(secret, old_secret), version, failures, rows[-1][6], changes)

    async def settle(self, key: Key, lease: UUID, seconds: float, settlement: Settlement) -> bool | None:
        """See LeaseStore.settle."""
        done = settlement
        told: tuple[object, ...] = (None,) * 8
        if (attempt := done.attempt) is not None:
            answer = attempt.answer
            told = (attempt.id, attempt.message_id, attempt.type, attempt.number, attempt.sent_at, attempt.duration_ms, answer.status, answer.error)
        args = (key.user_id, key.id, lease, seconds, done.version, done.seq, done.result, done.retry_seconds, done.release, *told)
        ((holds,),) = await self._database.fetch(SETTLE, *args)
        return None if holds is None else bool(holds)

    async def renew(self, leases: Mapping[Key, UUID], seconds: float) -> Collection[Key]:
        """See LeaseStore.renew."""
        users, ids = [key.user_id for key in leases], [key.id for key in leases]
        return {Key(row[0], row[1]) for row in await self._database.fetch(RENEW, users, ids, list(leases.values()), seconds)}

    async def list_tests(self, limit: int) -> Sequence[tuple[Key, UUID]]:
        """See LeaseStore.list_tests."""
        return [(Key(row[0], row[1]), row[2]) for row in await self._database.fetch(LIST_TESTS, limit)]

    async def take_test(self, key: Key, test_id: UUID) -> WaitingTest | None:
        """See LeaseStore.take_test."""
        (row,) = await self._database.fetch(TAKE_TEST, key.user_id, key.id, test_id)
        url, secret, old_secret, message, at = row
        return None if url is None else WaitingTest(url, _secrets(secret, old_secret), message, at)

    async def settle_test(self, key: Key, attempt: Attempt) -> None:
        """See LeaseStore.settle_test."""
        answer = attempt.answer
        outcome = (attempt.sent_at, attempt.duration_ms, answer.succeeded, answer.status, answer.error)
        await self._database.fetch(SETTLE_TEST, key.user_id, key.id, attempt.id, *outcome)


def _secrets(secret: bytes, old_secret: bytes | None) -> Sequence[bytes]:
    return [secret] if old_secret is None else [secret, old_secret]


def _told(row: Any) -> Told:
    seq, kind, at, changed_fields, project = row[7:12]
    subject = of_snapshot(row[12:]) if project is None else project_of_snapshot(orjson.loads(project))
    return Told(seq, ChangeKind(kind), at, changed_fields, subject)
