"""The caller's identity, taken from a verified access token."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from servicekit.errors import TokenInvalid, TokenMissing

# The user for whom this context works, or None: calls without a token and background work. The pipeline sets it. It decides nothing but whose turn
# it is when something is scarce.
acting_user: Final[ContextVar[UUID | None]] = ContextVar("acting_user", default=None)


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified caller. `expires_at` is the token's `exp`, in seconds since 1970.

    `scopes` is None for a session, which may call every method. A caller with an API token has the scopes that servicekit.scopes grants it, and
    `session_id` is then the API token's id and `api_token_name` its name. The name is empty if the access token is of auth_service from before names.
    """

    user_id: UUID
    session_id: UUID
    token_id: str
    expires_at: int
    scopes: frozenset[str] | None = None
    api_token_name: str = ""

    @property
    def by_api_token(self) -> bool:
        """Whether the caller has an API token, whose id `session_id` then is."""
        return self.scopes is not None


def bearer_token(authorization: str | None) -> str:
    """Returns the token in an Authorization value (RFC 6750 §2.1): the scheme, one or more spaces, and the token.

    Spaces and tabs around the value do not belong to it (RFC 9110 §5.5). Raises TokenMissing if nothing is left, TokenInvalid if it has another form.
    """
    scheme, _, rest = (authorization or "").strip(" \t").partition(" ")
    token = rest.lstrip(" ")
    if not scheme:
        raise TokenMissing
    if scheme.lower() != "bearer" or not token or " " in token or "\t" in token:
        raise TokenInvalid
    return token
