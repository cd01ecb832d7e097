"""Makes calls through the gateway over REST or gRPC, by an RPC's name and a JSON message, and returns their errors."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import grpc.aio
import httpx
import pytest

from tests.contract.table import row_of
from tests.support import answers
from tests.support.accounts import Account
from tests.support.answers import Answer
from tests.support.calls import message_of
from tests.support.descriptors import named, rpcs
from tests.support.errors import ApiError

INVALID, NOT_FOUND, ALREADY_EXISTS, FAILED_PRECONDITION, ABORTED = 3, 5, 6, 9, 10
HTTP_STATUS = {INVALID: 400, NOT_FOUND: 404, ALREADY_EXISTS: 409, FAILED_PRECONDITION: 400, ABORTED: 409}

# All RPCs that clients may call.
every_rpc = pytest.mark.parametrize("rpc", [rpc for rpc in rpcs() if not rpc.is_internal], ids=lambda rpc: rpc.name)

# Makes a call by an RPC's name and a JSON message, with headers or metadata.
Call: TypeAlias = Callable[..., Awaitable[Answer]]


def over_rest(rest: httpx.AsyncClient) -> Call:
    """Makes calls over REST. Fails if the HTTP status is not that of the error or, for a success, that of the row."""

    async def call(name: str, values: Mapping[str, Any], account: Account, **headers: str) -> Answer:
        answer = await answers.by_rest(rest, named(name), message_of(named(name), values), account, _named(headers))
        assert answer.status == (HTTP_STATUS[answer.error.code] if answer.error else row_of(named(name).name).status), answer
        return answer

    return call


def over_grpc(channel: grpc.aio.Channel) -> Call:
    """Makes calls over gRPC."""

    async def call(name: str, values: Mapping[str, Any], account: Account, **headers: str) -> Answer:
        return await answers.by_grpc(channel, named(name), message_of(named(name), values), account, _named(headers))

    return call


def refusal(answer: Answer) -> ApiError:
    """Returns the error. Fails if the call succeeded."""
    assert answer.error is not None, answer.values
    return answer.error


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
