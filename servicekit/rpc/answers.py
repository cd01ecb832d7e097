"""Limits on large answers: how many calls of one user make some at once, how fast they follow each other, and how many bytes wait for their clients.

An answer takes several times its size while it is made, and its size until the client has read it, which the client decides. The limits apply to the
methods whose answer has a repeated message. Nearly all of their answers are far below LARGE_BYTES, and end their call's turn at once.
"""

import asyncio
import time
from functools import partial
from typing import Any, Final

from servicekit.errors import Overloaded
from servicekit.rpc.budget import LARGE_BYTES
from servicekit.rpc.call import Call, Handler
from servicekit.rpc.method import Method
from servicekit.turns import Turn, Turns

# The calls of a user that may have a large answer. The others wait, until their deadline.
AT_ONCE: Final = 4
# Of the large answers of one user. A MiB costs the service and the gateway about 30 ms, so one user takes about half a core.
BYTES_PER_SECOND: Final = 8 * 1024 * 1024
# Of all large answers that clients have not read. They take twice this memory, because grpc copies an answer.
UNSENT_BYTES: Final = 32 * 1024 * 1024


class Answers:
    """The limits of one process."""

    def __init__(self, unsent_bytes: int = UNSENT_BYTES) -> None:
        self._turns = Turns(AT_ONCE, None)
        self._most = unsent_bytes
        self._unsent = 0

    def limit(self, method: Method, handler: Handler) -> Handler:
        """Returns the handler of a method of users with the limits around it. Its answers are bytes.

        A call is rejected with Overloaded if too many bytes are unsent. The answer of a call that has changed something is never rejected.
        """

        async def limited(request: Any, call: Call) -> bytes:
            self._require_room(0)
            turn, began = await self._turns.begin(call.identity.user_id), time.monotonic()
            try:
                answer: Any = await handler(request, call)
                # As bytes, so that the message does not take memory while the client reads.
                data: bytes = answer if isinstance(answer, bytes) else answer.SerializeToString()
                if method.only_reads:
                    self._require_room(len(data))
            except BaseException:
                turn.end()
                raise
            if len(data) <= LARGE_BYTES:
                turn.end()
            else:
                self._unsent += len(data)
                call.at_end += (partial(self._sent, turn, len(data), began),)
            return data

        return limited

    def _require_room(self, size: int) -> None:
        if self._unsent and self._unsent + size > self._most:
            raise Overloaded

    def _sent(self, turn: Turn, size: int, began: float) -> None:
        """Counts an answer that the client has read. Its turn lasts at least as long as an even flow of such answers takes."""
        self._unsent -= size
        pause = began + size * AT_ONCE / BYTES_PER_SECOND - time.monotonic()
        if pause > 0:
            asyncio.get_running_loop().call_later(pause, turn.end)
        else:
            turn.end()
