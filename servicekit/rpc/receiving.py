"""Receives requests: how many at once.

A request takes its memory while it arrives, and its client decides how long that takes. Of a request that the server does not receive, grpc keeps
only what fits into the window of its call (`servicekit.rpc.server`). So the server receives it when the caller is known. Nearly every request arrives
together with its call. Only while AT_ONCE requests have not arrived, further calls wait for their turn, at most OF_CALLER of the same caller at a
time: so one caller cannot take the memory of the process, nor delay others.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from servicekit.errors import MalformedRequest
from servicekit.rpc.call import Call
from servicekit.turns import Turns

AT_ONCE: Final = 16
OF_CALLER: Final = 4

# Returns the bytes of the request; something else if the client sends no message.
Read: TypeAlias = Callable[[], Awaitable[object]]


class Receiving:
    """The requests that one process receives."""

    def __init__(self, at_once: int = AT_ONCE, of_caller: int = OF_CALLER) -> None:
        self._free = at_once
        self._turns = Turns(of_caller, None)

    async def receive(self, read: Read, call: Call) -> bytes:
        """Returns the bytes of the request, after its turn. Raises MalformedRequest if there is none.

        Calls without a user are told apart by the client's address.
        """
        if self._free > 0:
            self._free -= 1
            try:
                data = await read()
            finally:
                self._free += 1
        else:
            async with self._turns.turn(call.client_address if call.caller is None else call.caller.user_id):
                data = await read()
        if not isinstance(data, bytes):
            raise MalformedRequest
        return data
