"""Wires the parts of the auth service by constructor and runs it. Only this module may import from all packages of auth_service."""

from collections.abc import Awaitable, Callable
from functools import partial

from aiohttp import web
from prometheus_client import CollectorRegistry
from taskmanager.auth.v1 import api_token_service_pb2, auth_service_pb2, event_service_pb2, user_pb2
from uuid_utils.compat import uuid7

from auth_service.api_tokens import endpoint as exchange_http
from auth_service.api_tokens import repository as api_token_rows
from auth_service.api_tokens.checks import ApiTokenChecks
from auth_service.api_tokens.exchange import Exchange
from auth_service.api_tokens.guesses import Guesses
from auth_service.api_tokens.handler import ApiTokenHandler, ExchangeHandler
from auth_service.api_tokens.repository import PostgresApiTokens
from auth_service.api_tokens.service import ApiTokenService
from auth_service.events import repository as event_rows
from auth_service.events.handler import EventHandler
from auth_service.events.repository import PostgresEvents
from auth_service.keys.repository import PostgresKeys
from auth_service.keys.ring import KeyRing
from auth_service.keys.service import KeyRotation, measure
from auth_service.passwords.hasher import PasswordHasher
from auth_service.passwords.login_guard import LoginGuard
from auth_service.passwords.rules import PasswordRules
from auth_service.security_log import SecurityLog
from auth_service.sessions import repository as session_rows
from auth_service.sessions.handler import SessionHandler
from auth_service.sessions.repository import PostgresSessions
from auth_service.sessions.service import SessionService
from auth_service.sessions.tokens import AccessTokens
from auth_service.settings import Settings
from auth_service.users.checks import UserChecks
from auth_service.users.handler import UserHandler
from auth_service.users.repository import PostgresUsers
from auth_service.users.service import Parts, UserService
from servicekit.access.rate_limit import RateLimiter
from servicekit.access.revocations import CHANNEL, POLL_SECONDS, RETRY_SECONDS, Revocations
from servicekit.access.tokens import TokenVerifier
from servicekit.process import app
from servicekit.process.ops import Endpoint, json_response
from servicekit.process.periodic import Periodic
from servicekit.rpc.metrics import registry
from servicekit.stores.migrate import packaged
from servicekit.stores.redis import Redis
from servicekit.stores.upkeep import INTERVAL_SECONDS, Upkeep
from servicekit.stores.wakeups import Wakeups, announce

# How long verifiers may cache the key set. A key must be published for longer than this before it signs.
JWKS_MAX_AGE_SECONDS = 60
EVENT_CONNECTIONS = 2
REMOVALS = (*session_rows.REMOVALS, *api_token_rows.REMOVALS, *event_rows.REMOVALS)


async def run(settings: Settings) -> None:
    """Serves until SIGTERM."""
    await app.run(settings, parts)


def parts(settings: Settings) -> app.Parts:
    """Returns the auth service's own parts, wired."""
    metrics = registry()
    database = app.database(settings, metrics)
    probe, schema_is_there = app.database_check(settings, packaged("auth", "auth_service"))
    redis = Redis(settings.redis_url.get_secret_value(), metrics, traced=settings.otel_exporter_otlp_endpoint is not None)
    passwords = PasswordHasher(cost=settings.bcrypt_cost, threads=settings.hashing_threads, queue=settings.hashing_queue, registry=metrics)
    rotation = KeyRotation(PostgresKeys(database), settings.key_seal, settings.key_policy)
    ring = KeyRing(settings.key_seal, settings.key_policy, reread=rotation.advance)
    measure(ring, settings.key_policy, metrics)
    keys = Periodic("signing keys", partial(rotation.advance, ring), interval_seconds=rotation.read_interval_seconds, retry_seconds=RETRY_SECONDS)
    # The event log has its own connections, so that calls that exhaust the main pool do not delay revocations.
    events_database = app.database(settings, CollectorRegistry(), connections=EVENT_CONNECTIONS)
    events = PostgresEvents(events_database)
    revocations = Revocations(events, metrics)
    reading = Periodic("events", revocations.refresh, interval_seconds=POLL_SECONDS, retry_seconds=RETRY_SECONDS)
    wakeups = Wakeups(settings.redis_url.get_secret_value())
    wakeups.subscribe(CHANNEL, reading.wake)
    upkeep = Periodic("upkeep", Upkeep(database, REMOVALS).round, interval_seconds=INTERVAL_SECONDS)
    issuer, audience = settings.token_issuer, settings.token_audience
    limiter = RateLimiter(redis, metrics, prefix="login")
    shared = _parts(settings, metrics, passwords, limiter, partial(announce, redis, CHANNEL))
    access_tokens = AccessTokens(ring, issuer=issuer, audience=audience, ttl_seconds=settings.access_token_ttl_seconds)
    verifier = TokenVerifier(ring, revocations, issuer=issuer, audience=audience)
    checks = UserChecks(shared.rules)
    users = UserHandler(UserService(PostgresUsers(database), shared))
    sessions = SessionHandler(SessionService(PostgresSessions(database), shared, access_tokens, settings.session_lifetime))
    api_tokens = PostgresApiTokens(database)
    guesses = Guesses(limiter, settings.api_token_limit)
    exchange = Exchange(api_tokens, access_tokens, verifier, guesses, shared.security_log, metrics)
    return app.Parts(
        handlers=[
            (auth_service_pb2.DESCRIPTOR.services_by_name["AuthService"], [users, sessions, ExchangeHandler(exchange), checks]),
            (user_pb2.DESCRIPTOR.services_by_name["UserService"], [users, checks]),
            (
                api_token_service_pb2.DESCRIPTOR.services_by_name["ApiTokenService"],
                [ApiTokenHandler(ApiTokenService(api_tokens, shared)), ApiTokenChecks()],
            ),
            (event_service_pb2.DESCRIPTOR.services_by_name["EventService"], [EventHandler(events)]),
        ],
        verifier=verifier,
        registry=metrics,
        resources=[probe, database, events_database, redis, passwords, keys, reading, wakeups, upkeep],
        checks={"postgres": schema_is_there, "signing keys": ring.ready, "events": revocations.ready},
        endpoints=[web.get("/.well-known/jwks.json", jwks_endpoint(ring)), web.get(exchange_http.PATH, exchange_http.exchange_endpoint(exchange))],
        shortcut=exchange_http.exchange_shortcut(exchange),
    )


def _parts(
    settings: Settings, metrics: CollectorRegistry, passwords: PasswordHasher, limiter: RateLimiter, announcing: Callable[[], Awaitable[None]]
) -> Parts:
    guard = LoginGuard(limiter, settings.login_limits)
    return Parts(passwords, PasswordRules(), guard, SecurityLog(metrics), announcing, uuid7)


def jwks_endpoint(ring: KeyRing) -> Endpoint:
    """GET /.well-known/jwks.json (RFC 7517 §5). Returns 503 while no key is loaded, because verifiers would accept an empty set."""

    async def endpoint(_: web.Request) -> web.Response:
        jwks = ring.jwks()
        if not jwks["keys"]:
            return json_response({"status": "no keys yet"}, 503)
        return json_response(jwks, headers={"Cache-Control": f"public, max-age={JWKS_MAX_AGE_SECONDS}"})

    return endpoint
