"""The HTTP endpoint with which the gateway exchanges the API token of a request for an access token (Envoy's ext_authz filter).

HTTP, because each call with an API token makes one exchange, and an empty call of grpc.aio costs a quarter of a millisecond of CPU. For the same
reason a shortcut answers from the bytes of the request while this replica keeps the access token; the endpoint answers everything else. Both give no
more than the public RPC ExchangeApiToken does.
"""

import contextlib
from typing import Final

from aiohttp import web

from auth_service.api_tokens.exchange import Exchange
from auth_service.client import MAX_USER_AGENT_CHARACTERS, Client
from servicekit import deadline
from servicekit.errors import DependencyUnavailable, Kind, ServiceError
from servicekit.process.ops import Endpoint
from servicekit.process.shortcut import Shortcut
from servicekit.rpc.call import CLIENT_ADDRESS, MAX_ADDRESS_CHARACTERS

PATH: Final = "/exchange"
# The filter waits a little longer.
SECONDS: Final = 5.0
SCHEME: Final = "Bearer "
# Envoy makes the client's error from the status (gateway/replies.py). It takes every other error for one of its own.
STATUSES: Final = {Kind.UNAUTHENTICATED: 401, Kind.EXHAUSTED: 429}


START: Final = f"GET {PATH} HTTP/1.1\r\n".encode()
HEADER: Final = b"\r\nauthorization:"
VALUE: Final = b"\r\nauthorization: Bearer "
NO_BODY: Final = b"\r\ncontent-length: 0\r\n"
END: Final = b"\r\n\r\n"


def exchange_shortcut(exchange: Exchange) -> Shortcut:
    """Returns the shortcut for the requests that Envoy writes, complete in one piece. It answers only if this replica keeps the access token."""

    def shortcut(request: bytes) -> bytes | None:
        if not (request.startswith(START) and request.endswith(END) and request.count(HEADER) == 1 and NO_BODY in request):
            return None
        token = request.partition(VALUE)[2].partition(b"\r")[0]
        with contextlib.suppress(DependencyUnavailable):
            if (found := exchange.kept(token)) is not None:
                return f"HTTP/1.1 200 OK\r\nauthorization: Bearer {found.access_token}\r\ncontent-length: 0\r\n\r\n".encode()
        return None

    return shortcut


def exchange_endpoint(exchange: Exchange) -> Endpoint:
    """Returns the endpoint. Its answer has the access token in the header `authorization`, which replaces that of the client's request."""

    async def endpoint(request: web.Request) -> web.Response:
        values = request.headers.getall("authorization", ())
        # Two values together are not a valid token, as in the services.
        token = values[0].removeprefix(SCHEME) if len(values) == 1 else ""
        try:
            deadline.begin(SECONDS)
            found = await exchange.exchange(token, _client(request))
        except ServiceError as error:
            return web.Response(status=STATUSES.get(error.kind, 503))
        return web.Response(headers={"authorization": SCHEME + found.access_token})

    return endpoint


def _client(request: web.Request) -> Client:
    headers = request.headers
    address = headers.get(CLIENT_ADDRESS, request.remote or "")
    return Client(address[:MAX_ADDRESS_CHARACTERS], headers.get("user-agent", "")[:MAX_USER_AGENT_CHARACTERS], headers.get("x-request-id", ""))
