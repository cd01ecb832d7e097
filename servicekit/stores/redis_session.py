"""Connections to one Redis process: redis-py's client, and beside it one connection for pipelined reads.

redis-py takes a connection from its pool for each command, builds the command from parts, and parses the answer behind three layers of coroutines.
That costs more CPU than everything else in a read. One frequent command needs none of it, so it has a protocol of its own on hiredis. redis-py
opens that connection too (TLS, password, database), and hands its transport over.
"""

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import hiredis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

MAX_CONNECTIONS: Final = 32
_RUN_ID: Final = re.compile(rb"^run_id:(\w+)", re.MULTILINE)
_ROLE: Final = re.compile(rb"^role:(\w+)", re.MULTILINE)


class Session:
    """Contract: every connection leads to the process that the first one led to, and that is a master. Any other connection fails.

    `process` is that process's run id.
    `on_lost` is called once when the connection of the reads ends by itself, even if no read is waiting.
    """

    def __init__(self, url: str, timeout_seconds: float, on_lost: "Callable[[Session, BaseException], None]") -> None:
        self.process = ""
        self._on_lost = on_lost
        # With its defaults, redis-py would try each command about ten times, for five seconds each.
        self._pool = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=None,
            # The caller limits every command, including its wait for a connection. redis-py's own timeouts would cost a task for each command, and
            # they would also fail the commands of a process that was only stalled.
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
            # Without messages that Redis sends by itself.
            protocol=2,
            redis_connect_func=self._greet,
        )
        self.client = redis.asyncio.Redis.from_pool(self._pool)
        self.reads = Reads(timeout_seconds / 2, self._ended)

    async def open(self) -> None:
        """Opens the connection of the reads. Raises RedisError or OSError."""
        connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
        await connection.connect()
        self.reads.take_over(connection)

    async def close(self) -> None:
        """Closes all connections. Reads and commands that are waiting fail."""
        self.reads.end(RedisConnectionError("closed"))
        await self.client.aclose()

    def _ended(self, error: BaseException) -> None:
        self._on_lost(self, error)

    async def _greet(self, connection: Any) -> None:
        await connection.on_connect()
        await connection.send_command("INFO", check_health=False)
        info: bytes = await connection.read_response(disable_decoding=True)
        run_id, role = _RUN_ID.search(info), _ROLE.search(info)
        if run_id is None or role is None:
            raise RedisError("INFO has no run_id or role")
        if role[1] != b"master":
            raise RedisConnectionError("the address leads to a replica")
        process = run_id[1].decode()
        self.process = self.process or process
        if process != self.process:
            raise RedisConnectionError("the address leads to another process now")


class Reads(asyncio.Protocol):
    """GETEX, pipelined: the reads of one turn of the event loop are sent together, and Redis answers in the same order.

    GETEX without options is GET, except that a replica of Redis refuses it.

    Contract: Redis answers each read within two times `half_seconds`, the second of which begins only when the event loop has run after the first.
    So a process that was stalled does not take its own delay for a timeout of Redis. If Redis does not answer, answers with an error, or closes the
    connection, all waiting reads fail together, so that no read receives the answer to another.
    """

    def __init__(self, half_seconds: float, on_ended: Callable[[BaseException], None]) -> None:
        """`on_ended` is called when the connection ends, but not if `end` ended it."""
        self.ended = False
        self._half_seconds = half_seconds
        self._on_ended = on_ended
        self._loop = asyncio.get_running_loop()
        self._connection: Any = None
        self._transport: asyncio.Transport | None = None
        self._parser = hiredis.Reader(replyError=ResponseError, protocolError=RedisError)
        self._unsent: list[bytes] = []
        self._waiting: deque[asyncio.Future[bytes | None]] = deque()
        self._answered = 0
        self._watching = False

    def take_over(self, connection: Any) -> None:
        """Takes the transport of a connection that redis-py has opened."""
        # Kept, because redis-py closes the transport of a connection that is collected.
        self._connection = connection
        transport: asyncio.Transport = connection._writer.transport  # noqa: SLF001 - redis-py has no other way to it
        self._transport = transport
        transport.set_protocol(self)
        if transport.is_closing():
            self._lose(RedisConnectionError("the connection has ended"))

    def get(self, key: bytes) -> Awaitable[bytes | None]:
        """Returns the key's value, or None. Raises RedisError, OSError or TimeoutError."""
        future: asyncio.Future[bytes | None] = self._loop.create_future()
        if self.ended:
            future.set_exception(RedisConnectionError("the connection has ended"))
            return future
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(b"*2\r\n$5\r\nGETEX\r\n$%d\r\n%b\r\n" % (len(key), key))
        self._waiting.append(future)
        if not self._watching:
            self._watching = True
            self._loop.call_later(self._half_seconds, self._watch, self._answered)
        return future

    def end(self, error: BaseException) -> None:
        """Fails all waiting reads and closes the connection."""
        self.ended = True
        if self._transport is not None:
            self._transport.abort()
            # So that redis-py does not warn of it.
            self._connection._reader = self._connection._writer = None  # noqa: SLF001 - as above
            self._transport = None
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)
                future.exception()  # prevents asyncio's warning if the caller is cancelled now and never reads it

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol. Gives each answer to the read that has waited longest."""
        try:
            self._parser.feed(data)
            while not self.ended and (answer := self._parser.gets()) is not False:
                if isinstance(answer, ResponseError):
                    raise answer
                if not self._waiting:
                    raise RedisConnectionError("an answer that nobody asked for")
                self._answered += 1
                future = self._waiting.popleft()
                # A cancelled caller has cancelled its future.
                if not future.done():
                    future.set_result(answer)
        except RedisError as error:
            self._lose(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._lose(exc or RedisConnectionError("Redis has closed the connection"))

    def _send(self) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def _watch(self, due: int) -> None:
        """Ends the connection unless the reads sent before the previous check are answered. `due` is the number of answers that they need."""
        self._watching = False
        if self.ended:
            return
        if self._answered < due:
            self._lose(TimeoutError())
        elif self._waiting:
            self._watching = True
            self._loop.call_later(self._half_seconds, self._watch, self._answered + len(self._waiting))

    def _lose(self, error: BaseException) -> None:
        if not self.ended:
            self.end(error)
            self._on_ended(error)
