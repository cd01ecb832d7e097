"""An API token: plain values, independent of storage and wire format."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

MAX_API_TOKENS_PER_USER: Final = 50
DEFAULT_LIFETIME: Final = timedelta(days=90)
MAX_LIFETIME: Final = timedelta(days=366)
# `last_used_at` is behind the last use by less than this.
USE_GRAIN: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class NewApiToken:
    """What the user chooses for an API token. Without `expires_at` (aware, in UTC) it lives for DEFAULT_LIFETIME."""

    name: str
    scopes: tuple[str, ...]
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class ApiToken:
    """An API token as its user sees it. `last_used_at` is None before the first use."""

    id: UUID
    name: str
    scopes: tuple[str, ...]
    hint: str
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Grant:
    """What an API token in use allows, and to whom. After `use_again_at`, its next use must be stored again."""

    api_token_id: UUID
    user_id: UUID
    name: str
    scopes: tuple[str, ...]
    expires_at: datetime
    use_again_at: datetime


@dataclass(frozen=True, slots=True)
class Exchanged:
    """The access token that a client gets for an API token. `expires_in` is its remaining lifetime in seconds."""

    access_token: str
    expires_in: int
