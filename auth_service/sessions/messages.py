"""Converts sessions and tokens from domain values to messages of taskmanager.auth.v1."""

from uuid import UUID

from taskmanager.auth.v1 import auth_service_pb2

from auth_service.sessions.domain import SessionDetails, TokenPair
from servicekit.rpc.timestamps import to_timestamp


def to_session(session: SessionDetails, current: UUID) -> auth_service_pb2.Session:
    """Returns the session as an API message. `current` is the id of the caller's session."""
    return auth_service_pb2.Session(
        id=str(session.id),
        created_at=to_timestamp(session.created_at),
        last_used_at=to_timestamp(session.last_used_at),
        expires_at=to_timestamp(session.expires_at),
        user_agent=session.user_agent,
        address=session.address,
        current=session.id == current,
    )


def to_tokens(pair: TokenPair) -> auth_service_pb2.TokenResponse:
    """Returns the response of Login and RefreshToken."""
    return auth_service_pb2.TokenResponse(
        access_token=pair.access_token,
        token_type="Bearer",  # noqa: S106 - a scheme's name
        expires_in=pair.expires_in,
        refresh_token=pair.refresh_token,
    )
