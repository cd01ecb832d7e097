"""Fixtures: the ways into the system (REST and gRPC through the gateway, gRPC directly to a service), and test data for calls."""

from collections.abc import Mapping
from dataclasses import dataclass

import grpc.aio
import httpx
import pytest
from google.protobuf.message import Message

from devstack.stack import Stack
from tests.contract.calls import Call, over_grpc, over_rest
from tests.contract.forgery import Forge, forge_of
from tests.contract.table import World, make_world
from tests.support.accounts import Account
from tests.support.calls import Metadata, rpc_call
from tests.support.descriptors import Rpc
from tests.support.errors import ApiError
from tests.support.tiers import SLOW


@dataclass(frozen=True, slots=True)
class Ways:
    """All ways by which a client can make one call."""

    rest: httpx.AsyncClient
    gateway: grpc.aio.Channel
    services: Mapping[str, grpc.aio.Channel]

    async def by_grpc(self, rpc: Rpc, request: Message | bytes, account: Account | None) -> dict[str, ApiError | None]:
        """Makes the call over gRPC. Returns the error of each way."""
        metadata = metadata_of(account)
        channels = {"gateway": self.gateway, "direct": self.services[rpc.program]}
        answers = {way: await rpc_call(channel, rpc, request, metadata) for way, channel in channels.items()}
        return {way: answer if isinstance(answer, ApiError) else None for way, answer in answers.items()}


def metadata_of(account: Account | None) -> Metadata:
    """Returns the account's token as gRPC metadata."""
    return (("authorization", f"Bearer {account.access_token}"),) if account else ()


@pytest.fixture
async def forge(system: Stack, account: Account) -> Forge:
    """A forge with the system's own signing key."""
    return await forge_of(system.state, account)


@pytest.fixture(scope="session")
def ways(rest: httpx.AsyncClient, gateway_channel: grpc.aio.Channel, auth_channel: grpc.aio.Channel, task_channel: grpc.aio.Channel) -> Ways:
    """All ways into the running system."""
    return Ways(rest, gateway_channel, {"auth": auth_channel, "task": task_channel})


@pytest.fixture(params=["rest", pytest.param("grpc", marks=SLOW)])
def call(request: pytest.FixtureRequest, rest: httpx.AsyncClient, gateway_channel: grpc.aio.Channel) -> Call:
    """Makes calls through the gateway. The test runs once over REST and once over gRPC."""
    return over_rest(rest) if request.param == "rest" else over_grpc(gateway_channel)


@pytest.fixture
async def acted(rest: httpx.AsyncClient) -> tuple[World, Account]:
    """A world of the test's own, and the account that acts in it."""
    return await make_world(rest)


@pytest.fixture(scope="module")
async def shared(rest: httpx.AsyncClient) -> tuple[World, Account]:
    """One world for a module. Its tests make only calls that are rejected and change nothing."""
    return await make_world(rest)
