"""The tokens of a session, and where a client keeps them."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

from task_manager_client.values import TokenAnswer

# The client refreshes a token this long before it expires, or after 90 % of its lifetime if that is later, so that no call meets an expired one.
MARGIN_SECONDS: Final = 30.0
MARGIN_SHARE: Final = 0.1

# How long a client waits for the lock of a store. A refresh holds it for at most 10 s, the deletion of an account as long as one call takes.
LOCK_SECONDS: Final = 30.0

Release = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a session. `fresh_until` is the time, in seconds since the epoch, from which the access token must be refreshed."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    fresh_until: float

    @classmethod
    def of(cls, answer: TokenAnswer, now: float) -> Self:
        """Returns the tokens that an answer contains."""
        margin = min(MARGIN_SECONDS, answer.expires_in * MARGIN_SHARE)
        return cls(answer.access_token, answer.refresh_token, now + answer.expires_in - margin)


class TokenStore(Protocol):
    """Keeps the tokens. All clients that share a store share a session."""

    def load(self) -> Tokens | None:
        """Returns the tokens, or None after a logout."""

    def save(self, tokens: Tokens | None) -> None:
        """Replaces the tokens."""

    def try_lock(self) -> Release | None:
        """Locks the store for one change of its tokens: a refresh, a login, a logout.

        Returns the function that unlocks it, or None at once if somebody else holds the lock.
        """


class MemoryStore:
    """Keeps the tokens in this process, for any number of threads and tasks."""

    def __init__(self, tokens: Tokens | None = None) -> None:
        self._tokens = tokens
        self._lock = threading.Lock()

    def load(self) -> Tokens | None:
        """Returns the tokens, or None after a logout."""
        return self._tokens

    def save(self, tokens: Tokens | None) -> None:
        """Replaces the tokens."""
        self._tokens = tokens

    def try_lock(self) -> Release | None:
        """Locks the store, unless it is locked."""
        return self._lock.release if self._lock.acquire(blocking=False) else None


def fixed(access_token: str) -> MemoryStore:
    """Returns a store with one access token, which cannot be refreshed."""
    return MemoryStore(Tokens(access_token, "", float("inf")))


def is_fresh(tokens: Tokens) -> bool:
    """Returns whether the access token can still be used."""
    return time.time() < tokens.fresh_until
