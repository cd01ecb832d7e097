"""Connections to one Redis process: redis-py's client, and beside it one connection for pipelined commands.

redis-py takes a connection from its pool for each command, builds the command from parts, and parses the answer behind three layers of coroutines.
That costs more CPU than everything else in a read. The frequent commands, GET and scripts, need none of it, so they have a protocol of their own on
hiredis. redis-py opens that connection too (TLS, password, database), and hands its transport over.
"""

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import hiredis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError

MAX_CONNECTIONS: Final = 32
_RUN_ID: Final = re.compile(rb"^run_id:(\w+)", re.MULTILINE)
_ROLE: Final = re.compile(rb"^role:(\w+)", re.MULTILINE)
_CLUSTER: Final = re.compile(rb"^cluster_enabled:1", re.MULTILINE)


class UnsuitableServer(RedisConnectionError):
    """A server that answers, but may not be used. The message gives the reason, without an address."""


class Session:
    """Contract: every connection leads to the process that the first one led to: a master, not in cluster mode. Any other connection fails.

    `process` is that process's run id.
    `on_lost` is called once when the connection of the pipelined commands ends by itself, even if no command is waiting.
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
        self.pipelined = Pipelined(timeout_seconds / 2, self._ended)

    async def open(self) -> None:
        """Opens the connection of the pipelined commands. Raises RedisError or OSError."""
        connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
        await connection.connect()
        self.pipelined.take_over(connection)

    async def close(self) -> None:
        """Closes all connections. Commands that are waiting fail."""
        self.pipelined.end(RedisConnectionError("closed"))
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
        if _CLUSTER.search(info):
            # Its keys lie on several processes, and the protocol of the cache needs all of them on one (docs/adr/0017-cache-protocol.md).
            raise UnsuitableServer("the server is in cluster mode, which is not supported")
        if role[1] != b"master":
            raise UnsuitableServer("the address leads to a replica")
        process = run_id[1].decode()
        self.process = self.process or process
        if process != self.process:
            raise RedisConnectionError("the address leads to another process now")


class Pipelined(asyncio.Protocol):
    """Pipelined commands: those of one turn of the event loop are sent together, and Redis executes and answers them in the same order.

    Contract: Redis answers each command within two times `half_seconds`, the second of which begins only when the event loop has run after the first.
    So a process that was stalled does not take its own delay for a timeout of Redis. If Redis does not answer, answers with an error, or closes the
    connection, all waiting commands fail together, so that no command receives the answer to another. The one error that only its own command
    receives is that Redis does not have a script. A command whose caller leaves is sent all the same.
    """

    def __init__(self, half_seconds: float, on_ended: Callable[[BaseException], None]) -> None:
        """`on_ended` is called when the connection ends, but not if `end` ended it."""
        self.ended = False
        self._half_seconds = half_seconds
        self._on_ended = on_ended
        self._loop = asyncio.get_running_loop()
        self._connection: Any = None
        self._transport: asyncio.Transport | None = None
        self._parser = hiredis.Reader(replyError=_reply_error, protocolError=RedisError)
        self._unsent: list[bytes] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()
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
        """Returns the key's value, or None. Raises RedisError, OSError or TimeoutError.

        Sends GETEX, which without options is GET, except that a replica of Redis refuses it.
        """
        return self._ask(b"*2\r\n$5\r\nGETEX\r\n$%d\r\n%b\r\n" % (len(key), key))

    def evaluate(self, command: str, script: str, keys: Sequence[str], args: Sequence[bytes | int | str]) -> Awaitable[Any]:
        """Runs a script by EVALSHA and its hash, or by EVAL and its source. Raises NoScriptError if Redis does not have it, and as `get` does."""
        parts: tuple[Any, ...] = (command, script, len(keys), *keys, *args)
        return self._ask(hiredis.pack_command(parts))

    def _ask(self, command: bytes) -> Awaitable[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        if self.ended:
            future.set_exception(RedisConnectionError("the connection has ended"))
            return future
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(command)
        self._waiting.append(future)
        if not self._watching:
            self._watching = True
            self._loop.call_later(self._half_seconds, self._watch, self._answered)
        return future

    def end(self, error: BaseException) -> None:
        """Fails all waiting commands and closes the connection."""
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
        """See asyncio.Protocol. Gives each answer to the command that has waited longest."""
        try:
            self._parser.feed(data)
            while not self.ended and (answer := self._parser.gets()) is not False:
                if isinstance(answer, ResponseError) and not isinstance(answer, NoScriptError):
                    raise answer
                if not self._waiting:
                    raise RedisConnectionError("an answer that nobody asked for")
                self._answered += 1
                future = self._waiting.popleft()
                # A cancelled caller has cancelled its future.
                if future.done():
                    continue
                if isinstance(answer, NoScriptError):
                    future.set_exception(answer)
                    future.exception()  # as in `end`
                else:
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
        """Ends the connection unless the commands sent before the previous check are answered. `due` is the number of answers that they need."""
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


def _reply_error(message: str) -> ResponseError:
    return NoScriptError(message) if message.startswith("NOSCRIPT ") else ResponseError(message)
