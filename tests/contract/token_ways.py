"""Sends a call with an API token over each way that a client can take, and returns its error in one form."""

import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import httpx
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from tests.contract.conftest import Ways
from tests.gateway.grpc_web import frame, frames
from tests.support.accounts import Account
from tests.support.calls import message_of, rest_call, rpc_call, transcoded
from tests.support.descriptors import Rpc, named
from tests.support.errors import ApiError, of_response

WAYS: Final = ("rest", "gateway", "grpc-web", "direct")
TRAILERS: Final = 128


async def send(rpc: Rpc, way: str, message: Message, caller: Account, ways: Ways, headers: Mapping[str, str] | None = None) -> ApiError | None:
    """Sends the call with the caller's token, which is an API token. Returns its error, or None.

    `direct`: to the service without the gateway, with the access token for which the client has exchanged the API token.
    """
    more = dict(headers or {})
    if way == "rest":
        response = await rest_call(ways.rest, transcoded(rpc, message), {**caller.headers, **more})
        assert response.status_code < httpx.codes.INTERNAL_SERVER_ERROR, response.text
        return None if response.is_success else of_response(response)
    if way == "grpc-web":
        return await _over_grpc_web(rpc, message, {**caller.headers, **more}, ways.rest)
    if way == "direct":
        caller = replace(caller, access_token=await exchanged(caller.access_token, ways))
    channel = ways.gateway if way == "gateway" else ways.services[rpc.program]
    answer = await rpc_call(channel, rpc, message, [*caller.headers.items(), *more.items()])
    return answer if isinstance(answer, ApiError) else None


async def exchanged(api_token: str, ways: Ways) -> str:
    """Exchanges an API token at auth_service, without the gateway."""
    rpc = named("ExchangeApiToken")
    answer: Any = await rpc_call(ways.services["auth"], rpc, message_of(rpc, {"api_token": api_token}))
    assert not isinstance(answer, ApiError), answer
    return str(answer.access_token)


async def _over_grpc_web(rpc: Rpc, message: Message, headers: Mapping[str, str], rest: httpx.AsyncClient) -> ApiError | None:
    """Reads the first frame of the answer: a message, or the trailers of an error."""
    sent = {**headers, "content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
    request = rest.build_request("POST", rpc.path, content=frame(message), headers=sent)
    response = await rest.send(request, stream=True)
    try:
        assert response.status_code == httpx.codes.OK
        found: Mapping[str, str] = response.headers
        if "grpc-status" not in found:
            content = b""
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) >= 5 and len(content) >= 5 + int.from_bytes(content[1:5], "big"):
                    break
            flags, payload = frames(content)[0]
            if flags != TRAILERS:
                return None
            found = dict(line.split(":", 1) for line in payload.decode().splitlines())
        return _error(found)
    finally:
        await response.aclose()


def _error(trailers: Mapping[str, str]) -> ApiError | None:
    code = int(trailers["grpc-status"])
    encoded = trailers.get("grpc-status-details-bin", "").strip()
    status, info = status_pb2.Status.FromString(base64.b64decode(encoded + "=" * (-len(encoded) % 4))), error_details_pb2.ErrorInfo()
    for detail in status.details:
        detail.Unpack(info)
    return ApiError(code, info.reason, status.message, {}, dict(info.metadata)) if code else None
