"""Accounts of the running system, created over its API, with their tokens."""

import base64
import json
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import grpc.aio
import httpx
from taskmanager.auth.v1 import auth_service_pb2, auth_service_pb2_grpc

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
        """The headers for REST."""
        return {"authorization": f"Bearer {self.access_token}"}

    @property
    def metadata(self) -> grpc.aio.Metadata:
        """The metadata for gRPC."""
        return grpc.aio.Metadata(("authorization", f"Bearer {self.access_token}"))

    @property
    def claims(self) -> dict[str, object]:
        """The claims of the access token."""
        return dict(json.loads(base64.urlsafe_b64decode(self.access_token.split(".")[1] + "==")))


async def make_account(rest: httpx.AsyncClient, password: str = PASSWORD) -> Account:
    """Registers a new user over REST and logs in."""
    email = f"{uuid4().hex}@example.com"
    registered = await rest.post("/api/v1/auth/register", json={"email": email, "password": password, "name": "Test"})
    assert registered.status_code == 201, registered.text
    return await log_in(rest, Account(registered.json()["id"], email, "", "", password))


async def log_in(rest: httpx.AsyncClient, account: Account) -> Account:
    """Logs in. Returns the account with the tokens of the new session."""
    login = await rest.post("/api/v1/auth/login", json={"email": account.email, "password": account.password})
    assert login.status_code == 200, login.text
    tokens = login.json()
    return replace(account, access_token=tokens["access_token"], refresh_token=tokens["refresh_token"])


async def make_api_token(rest: httpx.AsyncClient, account: Account, *scopes: str, **chosen: str) -> tuple[str, str]:
    """Creates an API token of the account. Returns its id and its text."""
    created = await rest.post("/api/v1/auth/tokens", json={"name": "A test", "scopes": list(scopes), **chosen}, headers=account.headers)
    assert created.status_code == 201, created.text
    return created.json()["api_token"]["id"], created.json()["token"]


async def log_in_rpc(channel: grpc.aio.Channel, email: str, password: str, address: tuple[str, str]) -> None:
    """Logs in over gRPC. `address` is the metadata with the client's address. Raises grpc.aio.AioRpcError."""
    stub: Any = auth_service_pb2_grpc.AuthServiceStub(channel)  # type: ignore[no-untyped-call]
    await stub.Login(auth_service_pb2.LoginRequest(email=email, password=password), metadata=[address], timeout=10)
