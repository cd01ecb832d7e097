"""Puts the task service together, by constructor, and runs it. The only module here that knows all the others."""

from uuid import UUID

from taskmanager.auth.v1 import auth_service_pb2, user_pb2
from taskmanager.task.v1 import task_service_pb2
from uuid_utils.compat import uuid7

from servicekit import app
from servicekit.jwks import RemoteKeys
from servicekit.metrics import registry
from servicekit.paging import PageTokens
from servicekit.redis import Redis
from servicekit.tokens import TokenVerifier
from task_service.cache import CachedTasks
from task_service.handler import TaskHandler
from task_service.repository import PostgresTasks
from task_service.schema import migrations
from task_service.service import TaskService
from task_service.settings import Settings

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
    service = TaskService(cache, PageTokens(settings.page_token_key.get_secret_value()), new_id)
    keys = RemoteKeys(str(settings.jwks_url))
    return app.Parts(
        handlers=[(task_service_pb2.DESCRIPTOR.services_by_name["TaskService"], TaskHandler(service))],
        verifier=TokenVerifier(keys, issuer=settings.token_issuer, audience=settings.token_audience),
        registry=metrics,
        resources=[probe, database, redis, cache],
        checks={"postgres": schema_is_there, "signing keys": keys.ready},
        reflected=NEIGHBOURS,
    )


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562): ids that grow with time keep the index's right edge hot and the rest cold."""
    return uuid7()
