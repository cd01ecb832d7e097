"""Accounts of the running system, made over its API, with the tokens to act for them."""

import base64
import json
from dataclasses import dataclass, replace
from uuid import uuid4

import grpc.aio
import httpx

PASSWORD = "correct horse battery"


@dataclass(frozen=True, slots=True)
class Account:
    """A registered user who is logged in."""

    id: str
    email: str
    access_token: str
    refresh_token: str
    password: str = PASSWORD

    @property
    def headers(self) -> dict[str, str]:
        """For REST."""
        return {"authorization": f"Bearer {self.access_token}"}

    @property
    def metadata(self) -> grpc.aio.Metadata:
        """For gRPC."""
        return grpc.aio.Metadata(("authorization", f"Bearer {self.access_token}"))

    @property
    def claims(self) -> dict[str, object]:
        """What the access token says."""
        return dict(json.loads(base64.urlsafe_b64decode(self.access_token.split(".")[1] + "==")))


async def make_account(rest: httpx.AsyncClient, password: str = PASSWORD) -> Account:
    """A new user, logged in, over REST."""
    email = f"{uuid4().hex}@example.com"
    registered = await rest.post("/api/v1/auth/register", json={"email": email, "password": password, "name": "Test"})
    assert registered.status_code == 201, registered.text
    return await log_in(rest, Account(registered.json()["id"], email, "", "", password))


async def log_in(rest: httpx.AsyncClient, account: Account) -> Account:
    """The account in a new session."""
    login = await rest.post("/api/v1/auth/login", json={"email": account.email, "password": account.password})
    assert login.status_code == 200, login.text
    tokens = login.json()
    return replace(account, access_token=tokens["access_token"], refresh_token=tokens["refresh_token"])
