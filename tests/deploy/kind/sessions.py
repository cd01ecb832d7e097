"""A client with the session life of a user: it logs in, makes calls with the new access token, refreshes it, and logs out."""

from dataclasses import replace
from typing import Any, Final

import httpx

from tests.support.accounts import Account
from tests.support.load import Client, Operation
from tests.support.task_api import RestTasks, answer

# Refreshes per login. A login costs a password hash, and users refresh a session much more often than they log in.
REFRESHES: Final = 4


class Sessions:
    """The sessions of one account, one after the other. After a failed login it makes no calls until the next login."""

    def __init__(self, client: httpx.AsyncClient, account: Account) -> None:
        self._client = client
        self._account = account
        self._session: Account | None = None

    def client(self) -> Client:
        """Returns the operations in their order. The calls after each login and refresh use the new access token."""
        with_new_token: list[tuple[str, Operation]] = [("me", self._me), ("list", self._list)]
        refreshed: list[tuple[str, Operation]] = [("refresh", self._refresh), *with_new_token]
        return [("login", self._log_in), *with_new_token, *refreshed * REFRESHES, ("logout", self._log_out)]

    async def _log_in(self, request_id: str) -> None:
        self._session = None
        self._take(await self._post("login", request_id, {"email": self._account.email, "password": self._account.password}))

    async def _refresh(self, request_id: str) -> None:
        if self._session:
            self._take(await self._post("refresh", request_id, {"refresh_token": self._session.refresh_token}))

    async def _log_out(self, request_id: str) -> None:
        if self._session:
            await self._post("logout", request_id, {"refresh_token": self._session.refresh_token})

    async def _me(self, request_id: str) -> None:
        if self._session:
            await answer(self._client, "GET", "/api/v1/users/me", {**self._session.headers, "x-request-id": request_id})

    async def _list(self, request_id: str) -> None:
        if self._session:
            await RestTasks(self._client, self._session).list(request_id)

    async def _post(self, method: str, request_id: str, body: object) -> Any:
        return await answer(self._client, "POST", f"/api/v1/auth/{method}", {"x-request-id": request_id}, body)

    def _take(self, tokens: Any) -> None:
        self._session = replace(self._account, access_token=tokens["access_token"], refresh_token=tokens["refresh_token"])
