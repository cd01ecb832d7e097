"""The client of a call, as the use cases and the security log see it."""

from dataclasses import dataclass
from typing import Final

from servicekit.rpc.call import Call

MAX_USER_AGENT_CHARACTERS: Final = 256


@dataclass(frozen=True, slots=True)
class Client:
    """What the service knows about the client of a call. `address` is the client address as the gateway saw it."""

    address: str
    user_agent: str
    request_id: str


def client_of(call: Call) -> Client:
    """Returns the client of the call. Removes unprintable characters from the user agent, then cuts it to MAX_USER_AGENT_CHARACTERS."""
    user_agent = "".join(filter(str.isprintable, call.metadata.get("user-agent", "")))
    return Client(call.client_address, user_agent[:MAX_USER_AGENT_CHARACTERS], call.request_id)
