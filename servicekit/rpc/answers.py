"""Limits on large answers: how many calls of one user make some at once, how fast they follow each other, and how many bytes wait for their clients.

An answer takes several times its size while it is made, and its size until the client has read it, which the client decides. The limits apply to the
methods whose answer has a repeated message. Nearly all of their answers are far below LARGE_BYTES, and end their call's turn at once.
"""

import asyncio
import time
from functools import partial
from random import randrange
from typing import Any, Final
from uuid import UUID

from servicekit.errors import Overloaded
from servicekit.rpc.budget import LARGE_BYTES
from servicekit.rpc.call import ORIGINAL_PATH, Call, Handler
from servicekit.rpc.method import Method
from servicekit.turns import Turn, Turns

# The calls of a user that may have a large answer. The others wait, until their deadline.
AT_ONCE: Final = 4
# Of the large answers of one user. A MiB costs the service and the gateway about 15 ms.
BYTES_PER_SECOND: Final = 8 * 1024 * 1024
# Over REST the gateway turns an answer into JSON in one piece, 20 ms for each MiB, in which its worker serves nobody else. So an answer that has more
# bytes as JSON counts as often as it has this size, but at most SLOWEST times: 2 MiB take 4 s of the user's flow.
HARMLESS_BYTES: Final = 128 * 1024
SLOWEST: Final = 16
# The text of the largest page. It does not lengthen a turn.
PAGE_BYTES: Final = 2 * 1024 * 1024
# Of all large answers that clients have not read. They take twice this memory, because grpc copies an answer.
UNSENT_BYTES: Final = 32 * 1024 * 1024

# What the gateway's JSON needs six bytes for: control characters, `<` and `>`, in UTF-8 one byte each or two that begin with C2.
_ESCAPED: Final = bytes([*range(0x20), 0x3C, 0x3E, 0x7F, 0xC2])
_ESCAPE_BYTES: Final = 6
# All bytes of 2 MiB would take 3 ms.
_SAMPLE: Final = 16


class Answers:
    """The limits of one process."""

    def __init__(self, unsent_bytes: int = UNSENT_BYTES) -> None:
        self._turns = Turns(AT_ONCE, None)
        self._most = unsent_bytes
        self._unsent = 0
        # By user: when an even flow has sent the large answers so far, if that is in the future.
        self._until: dict[UUID, float] = {}

    def limit(self, method: Method, handler: Handler) -> Handler:
        """Returns the handler of a method of users with the limits around it. Its answers are bytes.

        A call is rejected with Overloaded if too many bytes are unsent. The answer of a call that has changed something is never rejected.
        """

        async def limited(request: Any, call: Call) -> bytes:
            self._require_room(0)
            turn = await self._turns.begin(call.identity.user_id)
            answer: Any = None
            data = b""
            try:
                answer = await handler(request, call)
                # As bytes, so that the message does not take memory while the client reads.
                data = answer if isinstance(answer, bytes) else answer.SerializeToString()
                if len(data) > LARGE_BYTES:
                    # This has taken some milliseconds, and to send it takes some more: the calls of others come between.
                    await asyncio.sleep(0)
                if method.only_reads:
                    self._require_room(len(data))
            except BaseException:
                turn.end()
                # The error's traceback keeps this frame.
                answer, data = None, b""
                raise
            if len(data) <= LARGE_BYTES:
                turn.end()
                return data
            self._unsent += len(data)
            call.at_end += (partial(self._sent, turn, len(data), self._time_of(data, call)),)
            return data

        return limited

    def _require_room(self, size: int) -> None:
        if self._unsent and self._unsent + size > self._most:
            raise Overloaded

    def _time_of(self, data: bytes, call: Call) -> float:
        """Returns when the turn of an answer may end, so that its user's answers have an even flow. It may be in the past."""
        is_json = ORIGINAL_PATH in call.metadata
        now, user_id = time.monotonic(), call.identity.user_id
        self._until = {user: until for user, until in self._until.items() if until > now}
        until = self._until[user_id] = self._until.get(user_id, now) + _seconds(_json_bytes(data) if is_json else len(data), is_json=is_json)
        return until - _seconds(PAGE_BYTES, is_json=is_json)

    def _sent(self, turn: Turn, size: int, at: float) -> None:
        """Counts an answer that the client has read. Its turn lasts at least until its time in the flow."""
        self._unsent -= size
        pause = at - time.monotonic()
        if pause > 0:
            asyncio.get_running_loop().call_later(pause, turn.end)
        else:
            turn.end()


def _seconds(size: int, *, is_json: bool) -> float:
    """Returns how long an answer takes in the flow of its user."""
    weight = min(max(size / HARMLESS_BYTES, 1.0), SLOWEST) if is_json else 1.0
    return size * weight / BYTES_PER_SECOND


def _json_bytes(data: bytes) -> int:
    """Returns about how many bytes an answer has in the gateway's JSON."""
    # From a random byte on, so that no text has its escaped characters beside the sample.
    sample = data[randrange(_SAMPLE) :: _SAMPLE]  # noqa: S311 - not a secret
    return len(data) + _SAMPLE * (_ESCAPE_BYTES - 1) * (len(sample) - len(sample.translate(None, _ESCAPED)))
