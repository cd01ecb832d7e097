"""GETs over one Redis connection of their own, written as they come and answered in order.

redis-py takes a connection from its pool for each command and gives it back, which costs the process about 130 µs of CPU; so the one command that
hot calls wait for goes around the pool. The connection itself (handshake, parser) is redis-py's.
"""

import asyncio
from collections import deque
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError


class Reads:
    """Contract: an answer comes within `timeout_seconds`, or all that wait fail together, as they do when the connection is lost.

    A process that was stalled does not take that for Redis's silence: the time counts in two halves, the second from when the loop has come round.
    """

    def __init__(self, pool: redis.asyncio.ConnectionPool, timeout_seconds: float) -> None:
        self._pool = pool
        self._half = timeout_seconds / 2
        self._connection: Any = None
        self._connecting: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._waiting: deque[asyncio.Future[bytes | None]] = deque()
        self._watching = False

    async def get(self, key: str) -> bytes | None:
        """What the key holds. Raises RedisError, OSError or TimeoutError, to each that waits, when one fails."""
        if self._connection is None:
            # One attempt for all who come meanwhile, and one failure: they must not try one after the other.
            self._connecting = self._connecting or asyncio.create_task(self._connect())
            await asyncio.shield(self._connecting)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bytes | None] = loop.create_future()
        self._waiting.append(future)
        if not self._watching:
            self._watching = True
            loop.call_later(self._half, self._watch, None)
        connection = self._connection
        try:
            await connection.send_packed_command(connection.pack_command("GET", key), check_health=False)
        except (RedisError, OSError) as error:
            self._fail(connection, error)
        return await future

    async def close(self) -> None:
        """Ends the connection."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)

    async def _connect(self) -> None:
        try:
            connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
            async with asyncio.timeout(self._half * 2):
                await connection.connect()
            self._connection = connection
            self._reading = asyncio.create_task(self._read(connection))
        finally:
            self._connecting = None

    async def _read(self, connection: Any) -> None:
        try:
            while True:
                value = await connection.read_response(disable_decoding=True)
                if not self._waiting:
                    raise RedisError("an answer that nobody asked for")
                future = self._waiting.popleft()
                # A caller that has left has cancelled its future.
                if not future.done():
                    future.set_result(value)
        except (RedisError, OSError) as error:
            self._fail(connection, error)

    def _watch(self, oldest: "asyncio.Future[bytes | None] | None") -> None:
        """Twice in a row the same one waits longest: nothing has come for half the time at least, with the loop turning."""
        if not self._waiting:
            self._watching = False
        elif self._waiting[0] is oldest:
            self._watching = False
            self._fail(self._connection, TimeoutError())
        else:
            asyncio.get_running_loop().call_later(self._half, self._watch, self._waiting[0])

    def _fail(self, connection: Any, error: BaseException) -> None:
        if connection is None or connection is not self._connection:
            return
        self._connection = None
        if self._reading is not None and self._reading is not asyncio.current_task():
            self._reading.cancel()
        self._reading = asyncio.create_task(connection.disconnect(nowait=True))
        waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # a caller that is cancelled just now would leave it unlooked at
