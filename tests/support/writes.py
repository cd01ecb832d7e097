"""Any write of an account, by its RPC's name, over REST: for tests of what follows from writes."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import httpx

from tests.support.accounts import Account
from tests.support.calls import message_of, rest_call, transcoded
from tests.support.descriptors import named

# Makes a write by its RPC's name and message in JSON; the answer in JSON. Fails if it was refused.
Write: TypeAlias = Callable[[str, Mapping[str, Any]], Awaitable[Any]]


def writes(rest: httpx.AsyncClient, account: Account) -> Write:
    """Writes of the account."""

    async def call(name: str, values: Mapping[str, Any]) -> Any:
        response = await rest_call(rest, transcoded(named(name), message_of(named(name), values)), account.headers)
        assert response.is_success, response.text
        return response.json()

    return call
