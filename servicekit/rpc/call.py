"""All that handlers and the pipeline see of grpc: the call under way. Another server runtime could make one as well."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from servicekit.identity import Identity

# What Envoy says of the address, by `use_remote_address` and the number of hops that it trusts.
CLIENT_ADDRESS: Final = "x-envoy-external-address"
MAX_ADDRESS_CHARACTERS: Final = 64


@dataclass(slots=True)
class Call:
    """One call. Metadata keys are lower case; of repeated keys the last counts, but two tokens are none; binary ones are left out."""

    metadata: Mapping[str, str]
    time_remaining: float | None
    request_id: str = ""
    caller: Identity | None = field(default=None)
    # The other end of the connection, in gRPC's form.
    peer: str = ""
    # What the handler says beside its answer (REST: as headers): lower-case keys, printable ASCII. It goes before the first message, so a stream's
    # handler fills it before that; not with an error.
    response_headers: dict[str, str] = field(default_factory=dict)
    # Of a stream: those that the transport has taken.
    messages_sent: int = 0

    @property
    def identity(self) -> Identity:
        """The caller of a method that needs one. The pipeline has seen to it."""
        if self.caller is None:
            raise RuntimeError("identity asked for in a method that is open to anybody")
        return self.caller

    @property
    def client_address(self) -> str:
        """The address of the client: as the gateway saw it, which lets no client say it; without the gateway, the other end of the connection."""
        given = self.metadata.get(CLIENT_ADDRESS)
        if given is None:
            kind, _, rest = self.peer.partition(":")
            given = unquote(rest.rpartition(":")[0]).strip("[]") if kind in {"ipv4", "ipv6"} else kind
        return given[:MAX_ADDRESS_CHARACTERS]


# Any: every method has message types of its own, which registration pairs by the descriptor.
Handler = Callable[[Any, Call], Awaitable[Any]]
# Of a method that streams: an async generator. It is closed when the stream ends, so its `finally` blocks run then, whoever ended it.
StreamHandler = Callable[[Any, Call], AsyncGenerator[Any, None]]
# Returns when the transport has taken the message. Raises CancelledError once the client has left.
Send = Callable[[Any], Awaitable[None]]
# A stream handler with the pipeline around it.
Stream = Callable[[Any, Call, Send], Awaitable[None]]
