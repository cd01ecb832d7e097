"""The call, as handlers and the pipeline see it. They see nothing else of grpc, so another server runtime could create calls too."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from servicekit.errors import Violation
from servicekit.identity import Identity

# The client address that Envoy determines by `use_remote_address` and its number of trusted hops.
CLIENT_ADDRESS: Final = "x-envoy-external-address"
# The path of a REST call, which the gateway's transcoder sets. No client of the gateway can set it.
ORIGINAL_PATH: Final = "x-envoy-original-path"
MAX_ADDRESS_CHARACTERS: Final = 64


@dataclass(slots=True)
class Call:
    """One call. Metadata keys are in lower case, and binary entries are left out, and so are the ones in `not_ascii`.

    If a key is repeated, its last value counts. Two `authorization` values are not a valid token.
    """

    metadata: Mapping[str, str]
    time_remaining: float | None
    request_id: str = ""
    caller: Identity | None = field(default=None)
    # The keys of values that are not ASCII. gRPC has no such values, but HTTP has.
    not_ascii: tuple[str, ...] = ()
    # Returns the address of the connection's other end, in gRPC's format.
    peer: Callable[[], str] = str
    # What the handler sends beside its response (REST: as headers): lower-case keys, printable ASCII values. They are sent before the first message,
    # so a stream's handler must set them before it. They are not sent with an error.
    response_headers: dict[str, str] = field(default_factory=dict)
    # The size of the request. The pipeline sets it.
    request_bytes: int = 0
    # What the server calls when a unary call has ended: its answer has been sent, or its client has gone.
    at_end: tuple[Callable[[], None], ...] = ()
    # Of a stream: the messages that the transport has accepted.
    messages_sent: int = 0

    @property
    def identity(self) -> Identity:
        """The caller of a method that requires an access token. The pipeline has set it."""
        if self.caller is None:
            raise RuntimeError("identity asked for in a method that is open to anybody")
        return self.caller

    @property
    def client_address(self) -> str:
        """The client's address: the one in the gateway's header, which no client can set; without a gateway, the connection's other end."""
        given = self.metadata.get(CLIENT_ADDRESS)
        if given is None:
            kind, _, rest = self.peer().partition(":")
            given = unquote(rest.rpartition(":")[0]).strip("[]") if kind in {"ipv4", "ipv6"} else kind
        return given[:MAX_ADDRESS_CHARACTERS]


# Any, because each method has its own message types. Registration takes them from the descriptor. The answer is a message, or its bytes.
Handler = Callable[[Any, Call], Awaitable[Any]]
# For a streaming method: an async generator. The pipeline closes it when the stream ends for any reason, so its `finally` blocks run then.
StreamHandler = Callable[[Any, Call], AsyncGenerator[Any, None]]
# Returns what is wrong with a request beyond the bounds in the protos. It also gets requests that violate those bounds, and must not raise for them.
Check = Callable[[Any, Call], Sequence[Violation]]
# Returns when the transport has accepted the message. Raises CancelledError after the client has disconnected.
Send = Callable[[Any], Awaitable[None]]
