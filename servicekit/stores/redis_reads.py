"""GETs over one Redis connection of their own, written as they come and answered in order.

redis-py takes a connection from its pool for each command and gives it back, which costs the process about 100 µs of CPU; so the one command that
hot calls wait for goes around the pool. The connection itself (handshake, parser) is redis-py's.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError


class Reads:
    """Contract: an answer comes within `timeout_seconds` of its question, or all that wait fail together, as they do when the connection is lost.

    A process that was stalled does not take that for Redis's silence: the time counts in two halves, the second from when the loop has come round.
    A connection that Redis ends is told to `on_lost`, also when nobody waits for an answer: the next one may meet another Redis, or an empty one.
    """

    def __init__(self, pool: redis.asyncio.ConnectionPool, timeout_seconds: float, on_lost: Callable[[BaseException], None]) -> None:
        self._pool = pool
        self._timeout_seconds = timeout_seconds
        self._on_lost = on_lost
        self._pipe: _Pipe | None = None
        self._connecting: asyncio.Task[_Pipe] | None = None

    async def get(self, key: str) -> bytes | None:
        """What the key holds. Raises RedisError, OSError or TimeoutError, to each that waits, when one fails."""
        return await (await self._connected()).get(key)

    async def connect(self) -> None:
        """Makes the connection, if there is none. Raises as `get`."""
        await self._connected()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._pipe is not None and not self._pipe.ended

    async def _connected(self) -> "_Pipe":
        pipe = self._pipe
        if pipe is None or pipe.ended:
            # One attempt for all who come meanwhile, and one failure: they must not try one after the other.
            if self._connecting is None:
                self._connecting = asyncio.create_task(self._connect())
            pipe = await asyncio.shield(self._connecting)
        return pipe

    def reset(self) -> None:
        """Drops the connection; the next read makes a new one."""
        if self._pipe is not None:
            self._pipe.end(RedisConnectionError("reset"))

    async def close(self) -> None:
        """Ends the connection, and the attempt to make one."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        self.reset()
        if self._pipe is not None:
            await self._pipe.closed()

    async def _connect(self) -> "_Pipe":
        try:
            connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
            async with asyncio.timeout(self._timeout_seconds):
                await connection.connect()
            self._pipe = _Pipe(connection, self._timeout_seconds / 2, self._on_lost)
            return self._pipe
        finally:
            self._connecting = None


class _Pipe:
    """One connection, and those who wait for its answers in the order of their questions.

    Neither outlives the other, so that no answer meets a stranger.
    """

    def __init__(self, connection: Any, half_seconds: float, on_lost: Callable[[BaseException], None]) -> None:
        self.ended = False
        self._on_lost = on_lost
        self._connection = connection
        self._half_seconds = half_seconds
        self._waiting: deque[asyncio.Future[bytes | None]] = deque()
        self._answered = 0
        self._watching = False
        self._closing: asyncio.Task[None] | None = None
        self._reading = asyncio.create_task(self._read())

    async def get(self, key: str) -> bytes | None:
        connection = self._connection
        # redis-py would connect again by itself, and nobody would read.
        if self.ended or not connection.is_connected:
            raise RedisConnectionError("the connection has ended")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bytes | None] = loop.create_future()
        self._waiting.append(future)
        if not self._watching:
            self._watching = True
            loop.call_later(self._half_seconds, self._watch, self._answered)
        try:
            await connection.send_packed_command(connection.pack_command("GET", key), check_health=False)
        except (RedisError, OSError) as error:
            self.end(error)
        return await future

    def end(self, error: BaseException) -> None:
        """Fails all who wait, and lets go of the connection."""
        if self.ended:
            return
        self.ended = True
        if self._reading is not asyncio.current_task():
            self._reading.cancel()
        self._closing = asyncio.create_task(self._connection.disconnect(nowait=True))
        for future in self._waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # a caller that is cancelled just now would leave it unlooked at
        self._waiting.clear()

    async def closed(self) -> None:
        """Waits until nothing of it is left."""
        await asyncio.gather(self._reading, *([self._closing] if self._closing else []), return_exceptions=True)

    async def _read(self) -> None:
        try:
            while True:
                value = await self._connection.read_response(disable_decoding=True)
                if not self._waiting:
                    raise RedisConnectionError("an answer that nobody asked for")
                self._answered += 1
                future = self._waiting.popleft()
                # A caller that has left has cancelled its future.
                if not future.done():
                    future.set_result(value)
        except (RedisError, OSError) as error:
            self.end(error)
            self._on_lost(error)

    def _watch(self, due: int) -> None:
        """What had been asked when this looked before must be answered by now; `due` is how many answers that makes."""
        self._watching = False
        if self.ended:
            return
        if self._answered < due:
            self.end(TimeoutError())
        elif self._waiting:
            self._watching = True
            asyncio.get_running_loop().call_later(self._half_seconds, self._watch, self._answered + len(self._waiting))
