"""A call and its complete result in one form for REST and gRPC: the answer in JSON or the error, and whether the answer is a replay."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc.aio
import httpx
from google.protobuf.message import Message

from tests.support.accounts import Account
from tests.support.calls import TIMEOUT_SECONDS, as_dict, rest_call, transcoded
from tests.support.descriptors import Rpc
from tests.support.errors import ApiError, of_response, of_rpc

REPLAYED = "idempotency-replayed"


@dataclass(frozen=True, slots=True)
class Answer:
    """`values` is the answer in JSON, None with an error. `replayed` is the header idempotency-replayed. `status` is the HTTP status, 0 over gRPC."""

    values: Any
    error: ApiError | None
    replayed: str | None
    status: int = 0

    @property
    def outcome(self) -> str:
        """The reason of the error, or OK."""
        return "OK" if self.error is None else self.error.reason


async def by_rest(client: httpx.AsyncClient, rpc: Rpc, message: Message, account: Account, headers: Mapping[str, str]) -> Answer:
    """Makes the call over REST. Raises httpx.TransportError if no answer arrives."""
    response = await rest_call(client, transcoded(rpc, message), {**account.headers, **headers})
    replayed = response.headers.get(REPLAYED)
    if response.is_success:
        return Answer(response.json(), None, replayed, response.status_code)
    return Answer(None, of_response(response), replayed, response.status_code)


async def by_grpc(channel: grpc.aio.Channel, rpc: Rpc, message: Message, account: Account, headers: Mapping[str, str]) -> Answer:
    """Makes the call over gRPC. If no answer arrives, the error is UNAVAILABLE without a reason."""
    metadata = grpc.aio.Metadata(*account.metadata, *headers.items())
    call = channel.unary_unary(rpc.path, response_deserializer=rpc.response.FromString)(
        message.SerializeToString(), metadata=metadata, timeout=TIMEOUT_SECONDS
    )
    try:
        values, error = as_dict(await call), None
    except grpc.aio.AioRpcError as failed:
        values, error = None, of_rpc(failed)
    sent: dict[str, Any] = {str(key): value for key, value in await call.initial_metadata() or ()}
    return Answer(values, error, sent.get(REPLAYED))
