"""A session and its tokens. Plain values; knows no storage and no wire format."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

MAX_SESSIONS_PER_USER: Final = 100
# In which a refresh token may be sent again, since the answer was lost or two of one client's windows sent it at once.
REFRESH_GRACE_SECONDS: Final = 10.0
# An address from which an account was logged in to so lately is known to it.
KNOWN_ADDRESS_DAYS: Final = 30


@dataclass(frozen=True, slots=True)
class Session:
    """A session that goes on. Times are aware, in UTC; it ends at `expires_at` unless it is refreshed before."""

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
    """How long sessions last: from each use to the next at most `idle_seconds`, altogether at most `absolute_seconds`."""

    idle_seconds: float
    absolute_seconds: float


@dataclass(frozen=True, slots=True)
class Rotated:
    """A refresh token was used up for the successor that was offered."""

    session: Session


@dataclass(frozen=True, slots=True)
class Repeated:
    """A refresh token was sent again within the grace: its successor, sealed, is the one of then."""

    session: Session
    sealed_successor: bytes


@dataclass(frozen=True, slots=True)
class Reused:
    """A refresh token was sent again later than that. Its session has ended, now or before."""

    session_id: UUID
    user_id: UUID


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What a client gets for a session. `expires_in` is the access token's time, in seconds."""

    access_token: str
    expires_in: int
    refresh_token: str
