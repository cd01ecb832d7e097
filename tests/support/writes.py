"""Makes any write of an account over REST, by the RPC's name, for tests of the effects of writes."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import httpx

from tests.support.accounts import Account
from tests.support.calls import message_of, rest_call, transcoded
from tests.support.descriptors import named

# Makes a write by the RPC's name and a JSON message. Returns the answer as JSON. Fails if the write is rejected.
Write: TypeAlias = Callable[[str, Mapping[str, Any]], Awaitable[Any]]


def writes(rest: httpx.AsyncClient, account: Account) -> Write:
    """Returns a Write for the account."""

    async def call(name: str, values: Mapping[str, Any]) -> Any:
        response = await rest_call(rest, transcoded(named(name), message_of(named(name), values)), account.headers)
        assert response.is_success, response.text
        return response.json()

    return call
