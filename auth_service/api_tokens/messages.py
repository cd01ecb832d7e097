"""Converts API tokens between domain values and messages of taskmanager.auth.v1."""

from datetime import UTC

from taskmanager.auth.v1 import api_token_service_pb2, auth_service_pb2

from auth_service.api_tokens.domain import ApiToken, Exchanged, NewApiToken
from servicekit.rpc.timestamps import to_timestamp


def from_api_token(message: api_token_service_pb2.ApiToken) -> NewApiToken:
    """Returns what the user has chosen for a new token."""
    expires_at = message.expires_at.ToDatetime(UTC) if message.HasField("expires_at") else None
    return NewApiToken(message.name, tuple(message.scopes), expires_at)


def to_api_token(token: ApiToken) -> api_token_service_pb2.ApiToken:
    """Returns the token as an API message."""
    return api_token_service_pb2.ApiToken(
        id=str(token.id),
        name=token.name,
        scopes=token.scopes,
        hint=token.hint,
        created_at=to_timestamp(token.created_at),
        last_used_at=None if token.last_used_at is None else to_timestamp(token.last_used_at),
        expires_at=to_timestamp(token.expires_at),
    )


def to_exchanged(exchanged: Exchanged) -> auth_service_pb2.ExchangeApiTokenResponse:
    """Returns the response of ExchangeApiToken."""
    return auth_service_pb2.ExchangeApiTokenResponse(
        access_token=exchanged.access_token,
        token_type="Bearer",  # noqa: S106 - a scheme's name
        expires_in=exchanged.expires_in,
    )
