"""The users of a system: creates them through the gateway, and keeps their access tokens valid during a long run."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Final

import httpx

from tests.support.accounts import Account, log_in, make_account

# auth_service hashes one password at a time by default. With more concurrent logins the last ones would miss their deadlines.
LOGINS_AT_ONCE: Final = 2
# An access token is valid for 900 s (ACCESS_TOKEN_TTL_SECONDS). A round is shorter than the difference.
RENEW_SECONDS: Final = 600.0


class Users:
    """Users who are logged in. Their order never changes."""

    def __init__(self, url: str, accounts: list[Account]) -> None:
        self.accounts = accounts
        self._url = url
        self._renewed = time.monotonic()

    @classmethod
    async def create(cls, url: str, count: int) -> "Users":
        """Registers users with the system whose gateway is at `url`, and logs them in."""
        async with httpx.AsyncClient(base_url=url, timeout=60) as rest:
            return cls(url, await _few_at_once(partial(make_account, rest) for _ in range(count)))

    async def tokens(self) -> Mapping[str, str]:
        """Returns the access token of each user, by the user's id. If the tokens are old, logs all users in again."""
        if time.monotonic() - self._renewed > RENEW_SECONDS:
            async with httpx.AsyncClient(base_url=self._url, timeout=60) as rest:
                self.accounts = await _few_at_once(partial(log_in, rest, account) for account in self.accounts)
            self._renewed = time.monotonic()
        return {account.id: account.access_token for account in self.accounts}


async def _few_at_once(logins: Iterable[Callable[[], Awaitable[Account]]]) -> list[Account]:
    turn = asyncio.Semaphore(LOGINS_AT_ONCE)

    async def one(login: Callable[[], Awaitable[Account]]) -> Account:
        async with turn:
            return await login()

    return await asyncio.gather(*(one(login) for login in logins))
