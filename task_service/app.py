"""Puts the task service together, by constructor, and runs it. The only module here that knows all the others."""

from uuid import UUID

from taskmanager.auth.v1 import auth_service_pb2, user_pb2
from taskmanager.task.v1 import task_service_pb2
from uuid_utils.compat import uuid7

from servicekit import app
from servicekit.announcements import Announcements
from servicekit.jwks import REFRESH_SECONDS, RemoteKeys
from servicekit.metrics import registry
from servicekit.paging import PlaceTokens, page_tokens
from servicekit.periodic import Periodic
from servicekit.postgres import Database
from servicekit.redis import Redis
from servicekit.revocations import CHANNEL, POLL_SECONDS, RETRY_SECONDS, Revocations
from servicekit.tokens import TokenVerifier
from servicekit.upkeep import INTERVAL_SECONDS, Upkeep
from servicekit.wakeups import Wakeups
from task_service import deleted_accounts, watching
from task_service.account_repository import PostgresAccountRows
from task_service.auth_events import AuthEvents
from task_service.cache import CachedTasks
from task_service.changes import PostgresChanges
from task_service.deleted_accounts import DeletedAccounts
from task_service.errors import InvalidResumeToken
from task_service.handler import TaskHandler
from task_service.repository import PostgresTasks
from task_service.schema import migrations
from task_service.service import FeedService, TaskService
from task_service.settings import Settings
from task_service.upkeep_repository import PostgresLeftovers
from task_service.watching import Watches, channel_of

# What the gateway's one reflection upstream tells of beside our own: the public services of the other service.
NEIGHBOURS = (auth_service_pb2.DESCRIPTOR.services_by_name["AuthService"], user_pb2.DESCRIPTOR.services_by_name["UserService"])


async def run() -> None:
    """Serves until SIGTERM, by the settings in the environment."""
    await app.run(Settings, parts)


def parts(settings: Settings) -> app.Parts:
    """The task service's own parts, wired."""
    metrics = registry()
    database = app.database(settings, metrics)
    probe, schema_is_there = app.database_check(settings, migrations())
    redis = Redis(settings.redis_url.get_secret_value(), metrics, traced=settings.otel_exporter_otlp_endpoint is not None)
    cache = CachedTasks(
        PostgresTasks(database), redis, metrics, value_seconds=settings.cache_ttl_seconds, write_timeout_seconds=settings.database_timeout_seconds
    )
    keys = RemoteKeys(str(settings.jwks_url), metrics)
    fetching = Periodic("signing keys", keys.refresh, interval_seconds=REFRESH_SECONDS)
    events = AuthEvents(settings.auth_grpc_endpoint, settings.service_tokens[0])
    deletions = DeletedAccounts(events, PostgresAccountRows(database))
    removing = Periodic("deleted accounts", deletions.round, interval_seconds=deleted_accounts.INTERVAL_SECONDS, retry_seconds=RETRY_SECONDS)
    revocations = Revocations(events, metrics, on_user_deleted=removing.wake, on_change=lambda: watches.check())  # noqa: PLW0108 - it is made below
    reading = Periodic("events", revocations.refresh, interval_seconds=POLL_SECONDS, retry_seconds=RETRY_SECONDS)
    wakeups = Wakeups(settings.redis_url.get_secret_value())
    wakeups.subscribe(CHANNEL, reading.wake)
    watches = Watches(PostgresChanges(database), wakeups, revocations.check, metrics)
    polling = Periodic("watches", watches.round, interval_seconds=watching.POLL_SECONDS)
    announcements = Announcements(redis)
    leftovers = PostgresLeftovers(database, bin_days=settings.task_retention_days, change_days=settings.change_retention_days)
    upkeep = Periodic("upkeep", Upkeep(leftovers).round, interval_seconds=INTERVAL_SECONDS)
    handler = _handler(settings, database, cache, watches, announcements)
    return app.Parts(
        handlers=[(task_service_pb2.DESCRIPTOR.services_by_name["TaskService"], handler)],
        verifier=TokenVerifier(keys, revocations, issuer=settings.token_issuer, audience=settings.token_audience),
        registry=metrics,
        resources=[probe, database, redis, cache, fetching, events, removing, reading, wakeups, announcements, polling, upkeep],
        checks={"postgres": schema_is_there, "signing keys": keys.ready, "events": revocations.ready},
        drains=[watches.drain],
        reflected=NEIGHBOURS,
    )


def _handler(settings: Settings, database: Database, cache: CachedTasks, watches: Watches, announcements: Announcements) -> TaskHandler:
    secret = settings.page_token_key.get_secret_value()
    feed = FeedService(PostgresChanges(database), watches, PlaceTokens(secret, "resume token", InvalidResumeToken))

    def announce(user_id: UUID) -> None:
        watches.changed(user_id)
        announcements.announce(channel_of(user_id))

    return TaskHandler(TaskService(cache, page_tokens(secret), new_id, announce), feed)


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562): ids that grow with time keep the index's right edge hot and the rest cold."""
    return uuid7()
