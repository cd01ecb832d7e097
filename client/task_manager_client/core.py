"""What every call needs: an access token, one refresh of it at a time, and retries. It does no input or output; see `steps`."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

from task_manager_client import accounts
from task_manager_client.errors import ConnectionFailed, NotLoggedIn, RefreshTokenInvalid, TaskManagerError, TokenInvalid
from task_manager_client.operation import Operation
from task_manager_client.retries import Retries
from task_manager_client.steps import Reply, Shielded, Steps, Wait, send
from task_manager_client.tokens import LOCK_SECONDS, Release, Tokens, TokenStore, is_fresh

T = TypeVar("T")

LOCK_POLL_SECONDS: Final = 0.02
# The server accepts a refresh token again for 10 s after its first use: the last of three attempts,
# each of 3 s, begins before that, even if the server asks for the longest waits that the client accepts.
REFRESH_TIMEOUT_SECONDS: Final = 3.0
REFRESH_RETRIES: Final = Retries(attempts=3, first_seconds=0.1, most_seconds=0.4, patience_seconds=1.0)


class Core:
    """The state that the calls of one client share."""

    def __init__(self, store: TokenStore, retries: Retries) -> None:
        self.retries = retries
        self._store = store

    def call(self, operation: Operation[T]) -> Steps[T]:
        """Makes a call. Raises TaskManagerError."""
        if not operation.authenticated:
            return (yield from _attempted(operation, self.retries))

        def once(access_token: str) -> Steps[T]:
            return (yield from _attempted(operation.authorized(access_token), self.retries))

        return (yield from self.authorized(once))

    def authorized(self, once: Callable[[str], Steps[T]]) -> Steps[T]:
        """Runs `once` with an access token. If the server rejects the token, runs it again with a new one. Raises NotLoggedIn."""
        tokens = self._store.load()
        if tokens is None:
            raise NotLoggedIn("you are not logged in")
        if not is_fresh(tokens):
            tokens = yield from self._refreshed(tokens)
        try:
            return (yield from once(tokens.access_token))
        except TokenInvalid as error:
            if not tokens.refresh_token:
                raise NotLoggedIn("the access token is not valid", error.reason, error.status) from error
            tokens = yield from self._refreshed(tokens)
        return (yield from once(tokens.access_token))

    def login(self, email: str, password: str) -> Steps[None]:
        """Logs in and keeps the tokens of the new session. Raises InvalidCredentials, TooManyAttempts."""
        tokens = Tokens.of((yield from self.call(accounts.login(email, password))), time.time())
        # A refresh of the session before would otherwise replace the new tokens.
        release = yield from self._lock()
        try:
            self._store.save(tokens)
        finally:
            release()

    def logout(self) -> Steps[None]:
        """Forgets the tokens and ends their session. Does nothing if there is none. If the call fails, the tokens are forgotten nevertheless."""
        release = yield from self._lock()
        try:
            tokens = self._store.load()
            if tokens is None:
                return
            self._store.save(None)
        finally:
            release()
        if tokens.refresh_token:
            yield from self.call(accounts.logout(tokens.refresh_token))

    def delete_me(self, password: str) -> Steps[None]:
        """Deletes the account and its tasks, and forgets the tokens. Raises WrongPassword."""
        operation = accounts.delete_me(password)

        def once(_: str) -> Steps[None]:
            release = yield from self._lock()
            try:
                # Whoever had the lock before may have replaced the tokens. Now nobody does, so that those that are forgotten are of this account.
                yield from _attempted(operation.authorized(self._current().access_token), self.retries)
                self._store.save(None)
            finally:
                release()

        yield from self.authorized(once)

    def _refreshed(self, stale: Tokens) -> Steps[Tokens]:
        """Returns tokens that are newer than `stale`: those that somebody else has saved meanwhile, or those of a refresh."""
        # A refresh must not stop half-way: the old refresh token works only once.
        tokens: Tokens = yield Shielded(self._refreshed_alone(stale))
        return tokens

    def _refreshed_alone(self, stale: Tokens) -> Steps[Tokens]:
        release = yield from self._lock()
        try:
            current = self._current()
            if current.access_token == stale.access_token:
                current = yield from self._refresh(current)
            return current
        finally:
            release()

    def _refresh(self, old: Tokens) -> Steps[Tokens]:
        try:
            answer = yield from _attempted(accounts.refresh_token(old.refresh_token, REFRESH_TIMEOUT_SECONDS), REFRESH_RETRIES)
        except RefreshTokenInvalid as error:
            if self._replace(old, None):
                raise NotLoggedIn("the session has ended", error.reason, error.status) from error
        else:
            self._replace(old, Tokens.of(answer, time.time()))
        return self._current()

    def _replace(self, old: Tokens, new: Tokens | None) -> bool:
        """Saves `new` in place of `old`. Returns False if somebody who does not use the lock has logged in or out meanwhile: that login counts."""
        if self._store.load() != old:
            return False
        self._store.save(new)
        return True

    def _current(self) -> Tokens:
        tokens = self._store.load()
        if tokens is None:
            raise NotLoggedIn("you are not logged in any more")
        return tokens

    def _lock(self) -> Steps[Release]:
        """Locks the tokens. Returns the function that unlocks them. Raises ConnectionFailed."""
        until = time.monotonic() + LOCK_SECONDS
        while (release := self._store.try_lock()) is None:
            if time.monotonic() > until:
                raise ConnectionFailed("another process has held the lock on the tokens for too long")
            yield Wait(LOCK_POLL_SECONDS)
        return release


def _attempted(operation: Operation[T], retries: Retries) -> Steps[T]:
    """Sends the request until an attempt succeeds or must not be repeated. Every attempt has the same idempotency key."""
    attempt = 0
    while True:
        attempt += 1
        try:
            reply: Reply = yield from send(operation.request)
            return operation.read(reply)
        except TaskManagerError as error:
            wait = retries.wait_seconds(error, attempt, repeatable=operation.repeatable)
            if wait is None:
                raise
        yield Wait(wait)
