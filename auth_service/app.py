"""Puts the auth service together, by constructor, and runs it. The only module here that knows all the others."""

from uuid import UUID

from aiohttp import web
from taskmanager.auth.v1 import auth_service_pb2, user_pb2
from uuid_utils.compat import uuid7

from auth_service.handler import AuthHandler, UserHandler
from auth_service.keys import SigningKeys, parse_signing_key
from auth_service.passwords import PasswordHasher
from auth_service.repository import PostgresAccounts
from auth_service.schema import migrations
from auth_service.service import AuthService
from auth_service.sessions import AccessTokens
from auth_service.settings import Settings
from servicekit import app
from servicekit.metrics import registry
from servicekit.ops import Endpoint, json_response
from servicekit.tokens import TokenVerifier

# How long verifiers may keep the set: a key must have been in it for longer than this before it signs.
JWKS_MAX_AGE_SECONDS = 60


async def run() -> None:
    """Serves until SIGTERM, by the settings in the environment."""
    await app.run(Settings, parts)


def parts(settings: Settings) -> app.Parts:
    """The auth service's own parts, wired."""
    metrics = registry()
    database = app.database(settings, metrics)
    probe, schema_is_there = app.database_check(settings, migrations())
    keys = SigningKeys(parse_signing_key(settings.signing_key.get_secret_value()))
    passwords = PasswordHasher(cost=settings.bcrypt_cost, threads=settings.hashing_threads, queue=settings.hashing_queue, registry=metrics)
    issuer, audience = settings.token_issuer, settings.token_audience
    access_tokens = AccessTokens(keys, issuer=issuer, audience=audience, ttl_seconds=settings.access_token_ttl_seconds)
    service = AuthService(PostgresAccounts(database), passwords, access_tokens, refresh_ttl_seconds=settings.refresh_token_ttl_seconds, new_id=new_id)
    return app.Parts(
        handlers=[
            (auth_service_pb2.DESCRIPTOR.services_by_name["AuthService"], AuthHandler(service)),
            (user_pb2.DESCRIPTOR.services_by_name["UserService"], UserHandler(service)),
        ],
        verifier=TokenVerifier(keys, issuer=issuer, audience=audience),
        registry=metrics,
        resources=[probe, database, passwords],
        checks={"postgres": schema_is_there},
        endpoints={"/.well-known/jwks.json": jwks_endpoint(keys)},
    )


def jwks_endpoint(keys: SigningKeys) -> Endpoint:
    """GET /.well-known/jwks.json (RFC 7517 §5)."""

    async def endpoint(_: web.Request) -> web.Response:
        return json_response(keys.jwks(), headers={"Cache-Control": f"public, max-age={JWKS_MAX_AGE_SECONDS}"})

    return endpoint


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562)."""
    return uuid7()
