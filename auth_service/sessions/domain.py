"""A session and its tokens: plain values, independent of storage and wire format."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

MAX_SESSIONS_PER_USER: Final = 100
# For this long a client may send a used refresh token again, because the answer was lost or two of its windows sent the token at once.
REFRESH_GRACE_SECONDS: Final = 10.0
# A client address is known to an account for this long after a login from it.
KNOWN_ADDRESS_DAYS: Final = 30


@dataclass(frozen=True, slots=True)
class Session:
    """An active session. It expires at `expires_at` (aware, in UTC) unless the client refreshes it before."""

    id: UUID
    user_id: UUID
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class SessionDetails:
    """A session as its user sees it."""

    id: UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    user_agent: str
    address: str


@dataclass(frozen=True, slots=True)
class SessionLifetime:
    """How long sessions last: at most `idle_seconds` after the login or the last refresh, and at most `absolute_seconds` in all."""

    idle_seconds: float
    absolute_seconds: float


@dataclass(frozen=True, slots=True)
class Rotated:
    """The refresh token is used up, and the offered successor replaces it."""

    session: Session


@dataclass(frozen=True, slots=True)
class Repeated:
    """The refresh token was sent again within the grace. `sealed_successor` is the encrypted successor from its first use."""

    session: Session
    sealed_successor: bytes


@dataclass(frozen=True, slots=True)
class Reused:
    """The refresh token was sent again after the grace. Its session is over: this call has ended it, or it ended or expired before."""

    session_id: UUID
    user_id: UUID


@dataclass(frozen=True, slots=True)
class TokenPair:
    """The tokens that a client gets for a session. `expires_in` is the access token's lifetime in seconds."""

    access_token: str
    expires_in: int
    refresh_token: str
