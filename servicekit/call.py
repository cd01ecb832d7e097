"""All that handlers and the pipeline see of grpc: the call under way. Another server runtime could make one as well."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from servicekit.identity import Identity


@dataclass(slots=True)
class Call:
    """One call. Metadata keys are lower case; of repeated keys the last counts, but two tokens are none; binary ones are left out."""

    metadata: Mapping[str, str]
    time_remaining: float | None
    request_id: str = ""
    caller: Identity | None = field(default=None)

    @property
    def identity(self) -> Identity:
        """The caller of a method that needs one. The pipeline has seen to it."""
        if self.caller is None:
            raise RuntimeError("identity asked for in a method that is open to anybody")
        return self.caller


# Any: every method has message types of its own, which registration pairs by the descriptor.
Handler = Callable[[Any, Call], Awaitable[Message]]
