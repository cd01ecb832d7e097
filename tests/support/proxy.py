"""A TCP proxy that can freeze and close connections. For its clients the server looks frozen or down, while other clients use it normally."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

# The turns of the event loop in which asyncio makes a transport, a protocol and a task of an accepted socket, and one more.
TURNS_UNTIL_ACCEPTED = 5


class Proxy:
    """Forwards connections to `host:port`. While frozen, it accepts connections but forwards nothing. While mute, it holds the server's answers."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        # New connections lead to this port.
        self.port_behind = port
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._audible = asyncio.Event()
        self._audible.set()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.accepted = 0
        # Called with each piece of client data before the proxy forwards it. Until it returns, the proxy holds the connection's client data.
        self.hold: Callable[[bytes], Awaitable[None]] | None = None

    def freeze(self) -> None:
        """Stops forwarding."""
        self._thawed.clear()

    def thaw(self) -> None:
        """Forwards again, including the data received meanwhile."""
        self._thawed.set()

    def mute(self) -> None:
        """Holds back the server's answers, but still forwards requests. If `cut` follows, the answers are lost."""
        self._audible.clear()

    def unmute(self) -> None:
        """Forwards answers again."""
        self._audible.set()

    def lose(self) -> None:
        """Silences the existing connections without closing them, as when a machine dies. New connections work."""
        self._thawed.clear()
        self._thawed = asyncio.Event()
        self._thawed.set()

    async def cut(self) -> None:
        """Closes all connections."""
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def start(self) -> None:
        """Starts to listen, on the previous port if there was one."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stops listening and closes all connections."""
        if self._server is not None:
            # A server that closes forgets a connection that it has just accepted, and leaves it open.
            for listening in self._server.sockets:
                asyncio.get_running_loop().remove_reader(listening.fileno())
            for _ in range(TURNS_UNTIL_ACCEPTED):
                await asyncio.sleep(0)
            self._server.close()
        await self.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                there_reader, there_writer = await asyncio.open_connection(self._host, self.port_behind)
                try:
                    async with asyncio.TaskGroup() as both:
                        both.create_task(self._pump(reader, there_writer, self._thawed, asks=True))
                        both.create_task(self._pump(there_reader, writer, self._thawed, self._audible, asks=False))
                finally:
                    there_writer.close()
        finally:
            self._connections.discard(task)
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *opened: asyncio.Event, asks: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                for each in opened:
                    await each.wait()
                if asks and self.hold is not None:
                    await self.hold(data)
                writer.write(data)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def proxied(host: str, port: int) -> AsyncIterator[Proxy]:
    """Yields a listening proxy."""
    proxy = Proxy(host, port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
