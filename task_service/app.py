"""Wires the parts of the task service by constructor and runs it. Only this module and `worker` may import from all packages of task_service."""

from uuid import UUID, uuid4

from taskmanager.auth.v1 import api_token_service_pb2, auth_service_pb2, user_pb2
from taskmanager.task.v1 import project_service_pb2, task_service_pb2, webhook_service_pb2
from uuid_utils.compat import uuid7

from servicekit.access.jwks import REFRESH_SECONDS, RemoteKeys
from servicekit.access.revocations import CHANNEL, POLL_SECONDS, RETRY_SECONDS, Revocations
from servicekit.access.seal import Seal
from servicekit.access.tokens import TokenVerifier
from servicekit.process import app
from servicekit.process.periodic import Periodic
from servicekit.rpc.metrics import registry
from servicekit.rpc.paging import PlaceTokens, page_tokens
from servicekit.stores.migrate import packaged
from servicekit.stores.postgres import Database
from servicekit.stores.redis import Redis
from servicekit.stores.upkeep import INTERVAL_SECONDS, Upkeep
from servicekit.stores.wakeups import Announcements, Wakeups
from task_service import worker
from task_service.accounts import service as deleted_accounts
from task_service.accounts.auth_events import AuthEvents
from task_service.accounts.repository import PostgresAccountRows
from task_service.accounts.service import DeletedAccounts
from task_service.cache.domain import ROUND_SECONDS
from task_service.cache.repository import PostgresCacheState
from task_service.cache.service import CacheState
from task_service.cache.values import CachedValues
from task_service.feed import watching
from task_service.feed.errors import InvalidResumeToken
from task_service.feed.handler import FeedHandler
from task_service.feed.repository import PostgresChanges
from task_service.feed.service import FeedService
from task_service.feed.watching import Watches, channel_of
from task_service.projects.cache import CachedProjects
from task_service.projects.checks import ProjectChecks
from task_service.projects.handler import ProjectHandler
from task_service.projects.repository import PostgresProjects
from task_service.projects.service import ProjectService
from task_service.settings import Settings, WorkerSettings
from task_service.tasks.cache import CachedTasks
from task_service.tasks.checks import TaskChecks
from task_service.tasks.handler import TaskHandler
from task_service.tasks.messages import encode
from task_service.tasks.repository import PostgresTasks, removals
from task_service.tasks.service import TaskService
from task_service.webhooks import service as webhooks
from task_service.webhooks.checks import WebhookChecks
from task_service.webhooks.handler import WebhookHandler
from task_service.webhooks.repository import PostgresWebhooks
from task_service.webhooks.service import WebhookService
from task_service.webhooks.signing import WebhookSeal

# The gateway routes reflection and health checks to task_service only, so task_service also describes the public services of auth_service, and asks
# for their health.
NEIGHBOURS = (
    auth_service_pb2.DESCRIPTOR.services_by_name["AuthService"],
    user_pb2.DESCRIPTOR.services_by_name["UserService"],
    api_token_service_pb2.DESCRIPTOR.services_by_name["ApiTokenService"],
)


async def start(settings: Settings | WorkerSettings) -> None:
    """Serves, or does the work of a worker, until SIGTERM."""
    if isinstance(settings, WorkerSettings):
        await app.run(settings, worker.parts)
    else:
        await app.run(settings, parts)


def parts(settings: Settings) -> app.Parts:
    """Returns the task service's own parts, wired."""
    metrics = registry()
    # PostgreSQL would plan the lists of a user with very many tasks for each call, to the same plan.
    database = app.database(settings, metrics, generic_plans=settings.database_generic_plans)
    probe, schema_is_there = app.database_check(settings, packaged("task", "task_service"))
    redis = Redis(settings.redis_url.get_secret_value(), metrics, traced=settings.otel_exporter_otlp_endpoint is not None)
    values = CachedValues(redis, settings.cache_ttl_seconds)
    # On the connection of the readiness check: if calls use the whole pool, the replica must still know whether it may rely on the cache.
    state = CacheState(PostgresCacheState(probe), values, uuid4, metrics)
    following = Periodic("cache state", state.round, interval_seconds=ROUND_SECONDS)
    cache = CachedTasks(PostgresTasks(database), state, values, encode, metrics)
    keys = RemoteKeys(str(settings.jwks_url), metrics)
    fetching = Periodic("signing keys", keys.refresh, interval_seconds=REFRESH_SECONDS)
    events = AuthEvents(settings.auth_grpc_endpoint, settings.service_tokens[0])
    deletions = DeletedAccounts(events, PostgresAccountRows(database))
    removing = Periodic(
        "deleted accounts", deletions.round, interval_seconds=deleted_accounts.INTERVAL_SECONDS, retry_seconds=deleted_accounts.RETRY_SECONDS
    )
    revocations = Revocations(events, metrics, on_user_deleted=removing.wake, on_change=lambda: watches.check())  # noqa: PLW0108 - defined below
    reading = Periodic("events", revocations.refresh, interval_seconds=POLL_SECONDS, retry_seconds=RETRY_SECONDS)
    wakeups = Wakeups(settings.redis_url.get_secret_value())
    wakeups.subscribe(CHANNEL, reading.wake)
    watches = Watches(PostgresChanges(database), wakeups, revocations.check, metrics)
    polling = Periodic("watches", watches.round, interval_seconds=watching.POLL_SECONDS)
    announcements = Announcements(redis)
    expired = removals(bin_days=settings.task_retention_days, change_days=settings.change_retention_days)
    upkeep = Periodic("upkeep", Upkeep(database, expired).round, interval_seconds=INTERVAL_SECONDS)
    hooks = WebhookService(PostgresWebhooks(database), WebhookSeal(Seal(settings.key_encryption_keys)), uuid7)
    resealing = Periodic("webhook secrets", hooks.reseal, interval_seconds=webhooks.RESEAL_INTERVAL_SECONDS)
    return app.Parts(
        handlers=[*_handlers(settings, database, cache, watches, announcements), *_of_webhooks(settings, hooks)],
        verifier=TokenVerifier(keys, revocations, issuer=settings.token_issuer, audience=settings.token_audience),
        registry=metrics,
        # Closed in reverse: the database first, because what it ends then removes its fences.
        resources=[probe, redis, cache, following, database, fetching, events, removing, reading, wakeups, announcements, polling, upkeep, resealing],
        checks={"postgres": schema_is_there, "signing keys": keys.ready, "events": revocations.ready},
        drains=[watches.drain],
        neighbours=dict.fromkeys(NEIGHBOURS, events.require_serving),
    )


def _handlers(settings: Settings, database: Database, cache: CachedTasks, watches: Watches, announcements: Announcements) -> app.Handlers:
    secret = settings.page_token_key.get_secret_value()
    tokens = page_tokens(secret)
    feed = FeedService(PostgresChanges(database), watches, PlaceTokens(secret, "resume token", InvalidResumeToken), tokens)

    def announce(user_id: UUID) -> None:
        watches.changed(user_id)
        announcements.announce(channel_of(user_id))

    # UUIDv7 (RFC 9562): ids that grow with time keep inserts at the right edge of the index.
    tasks = TaskService(cache, tokens, uuid7, announce)
    projects = ProjectService(CachedProjects(PostgresProjects(database), cache), tokens, uuid7, announce)
    return [
        (task_service_pb2.DESCRIPTOR.services_by_name["TaskService"], (TaskHandler(tasks, feed.token), FeedHandler(feed), TaskChecks())),
        (project_service_pb2.DESCRIPTOR.services_by_name["ProjectService"], (ProjectHandler(projects), ProjectChecks())),
    ]


def _of_webhooks(settings: Settings, service: WebhookService) -> app.Handlers:
    checks = WebhookChecks(settings.allowed_networks(settings.environment), http=settings.environment == "development")
    return [(webhook_service_pb2.DESCRIPTOR.services_by_name["WebhookService"], (WebhookHandler(service), checks))]
