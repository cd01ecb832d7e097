"""Makes the same call over REST and over gRPC from one message. The REST form follows from the method's google.api.http rule.

For a streaming method, the answer is the first message; then the client closes the stream.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import grpc.aio
import httpx
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from tests.support.descriptors import Rpc
from tests.support.errors import ApiError, of_response, of_rpc

VARIABLE = re.compile(r"\{([a-z_.]+)\}")
TIMEOUT_SECONDS = 15.0
EVENT_STREAM, DATA = "text/event-stream", "data: "

Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class RestCall:
    """An HTTP request. `streams`: the answer is a stream of server-sent events."""

    verb: str
    path: str
    query: Sequence[tuple[str, str]] = ()
    body: Any = field(default=None)
    streams: bool = False


def message_of(rpc: Rpc, values: Mapping[str, Any]) -> Message:
    """Returns the request message of a method from its JSON form."""
    return ParseDict(dict(values), rpc.request())


def as_dict(message: Message) -> dict[str, Any]:
    """Returns the JSON form that the gateway prints."""
    return dict(MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True))


def transcoded(rpc: Rpc, message: Message) -> RestCall:
    """Returns the REST form of a call: path variables in the path, the body field in the body, all other fields in the query."""
    values = MessageToDict(message, preserving_proto_field_name=True)
    path = VARIABLE.sub(lambda match: quote(str(_take(values, match[1].split("."))), safe=""), rpc.template)
    if rpc.body == "*":
        return RestCall(rpc.verb, path, (), values, rpc.streams)
    body = values.pop(rpc.body, {}) if rpc.body else None
    return RestCall(rpc.verb, path, tuple(_query(values)), body, rpc.streams)


async def rpc_call(channel: grpc.aio.Channel, rpc: Rpc, request: Message | bytes, metadata: Metadata = ()) -> Message | ApiError:
    """Makes a gRPC call. A request of bytes is sent unchanged."""
    data = request if isinstance(request, bytes) else request.SerializeToString()
    try:
        return await (_first_message if rpc.streams else _only_message)(channel, rpc, data, grpc.aio.Metadata(*metadata))
    except grpc.aio.AioRpcError as error:
        return of_rpc(error)


async def rest_call(client: httpx.AsyncClient, call: RestCall, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """Makes a REST call."""
    # Not urlencode, which writes `+` for a space: another test covers how the gateway reads `+`.
    query = "&".join(f"{quote(name)}={quote(value, safe='')}" for name, value in call.query)
    request = client.build_request(call.verb, f"{call.path}?{query}" if query else call.path, json=call.body, headers=dict(headers or {}))
    return await (first_event(client, request) if call.streams else client.send(request))


async def first_event(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    """Makes a call that answers with server-sent events. Returns a response whose body is the first event's data, or the error response unchanged."""
    response = await client.send(request, stream=True)
    try:
        if response.headers["content-type"] != EVENT_STREAM:
            await response.aread()
            return response
        async for line in response.aiter_lines():
            if line.startswith(DATA):
                return httpx.Response(response.status_code, headers=response.headers, content=line.removeprefix(DATA), request=request)
    finally:
        await response.aclose()
    raise AssertionError("the stream ended without a message")


async def rest_refusal(client: httpx.AsyncClient, call: RestCall, headers: Mapping[str, str] | None = None) -> ApiError | None:
    """Makes a REST call and returns its error, or None. The error must have the standard JSON shape and a status below 500."""
    response = await rest_call(client, call, headers)
    if response.status_code < httpx.codes.BAD_REQUEST:
        return None
    assert response.status_code < httpx.codes.INTERNAL_SERVER_ERROR, response.text
    return of_response(response)


async def _only_message(channel: grpc.aio.Channel, rpc: Rpc, data: bytes, metadata: grpc.aio.Metadata) -> Message:
    answer: Message = await channel.unary_unary(rpc.path, response_deserializer=rpc.response.FromString)(
        data, metadata=metadata, timeout=TIMEOUT_SECONDS
    )
    return answer


async def _first_message(channel: grpc.aio.Channel, rpc: Rpc, data: bytes, metadata: grpc.aio.Metadata) -> Message:
    call = channel.unary_stream(rpc.path, response_deserializer=rpc.response.FromString)(data, metadata=metadata, timeout=TIMEOUT_SECONDS)
    try:
        message = await call.read()
    finally:
        call.cancel()
    assert isinstance(message, Message), "the stream ended without a message"
    return message


def _take(values: dict[str, Any], path: Sequence[str]) -> Any:
    *parents, last = path
    for name in parents:
        values = values.get(name, {})
    return values.pop(last, "")


def _query(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _query(value, f"{prefix}{name}.")
        else:
            for item in value if isinstance(value, list) else [value]:
                yield prefix + name, str(item).lower() if isinstance(item, bool) else str(item)
