"""The client of a call, as every use case and the security log know it."""

from dataclasses import dataclass
from typing import Final

from servicekit.rpc.call import Call

MAX_USER_AGENT_CHARACTERS: Final = 256


@dataclass(frozen=True, slots=True)
class Client:
    """Who is at the other end of a call, as far as it can be seen: the address as the gateway saw it."""

    address: str
    user_agent: str
    request_id: str


def client_of(call: Call) -> Client:
    """The client of this call. Characters of the user agent that are not printable are left out."""
    user_agent = "".join(filter(str.isprintable, call.metadata.get("user-agent", "")))
    return Client(call.client_address, user_agent[:MAX_USER_AGENT_CHARACTERS], call.request_id)
