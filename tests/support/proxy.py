"""A TCP proxy that can freeze and cut what goes through it: how a server looks that hangs or is gone, while others use it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable


class Proxy:
    """Forwards connections to `host:port`. While frozen it accepts connections and forwards nothing; while mute nothing that the server says."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._audible = asyncio.Event()
        self._audible.set()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.accepted = 0
        # Is given what a client sends, and returns when that is to be forwarded; what the client sends behind it waits.
        self.hold: Callable[[bytes], Awaitable[None]] | None = None

    def freeze(self) -> None:
        """Forwards nothing from now on."""
        self._thawed.clear()

    def thaw(self) -> None:
        """Forwards again, also what came meanwhile."""
        self._thawed.set()

    def mute(self) -> None:
        """The server gets what it is sent, and its answers are held back from now on: cut then, and they are lost."""
        self._audible.clear()

    def unmute(self) -> None:
        """Answers get through again."""
        self._audible.set()

    def lose(self) -> None:
        """The connections that there are get nothing any more, and no end either, as when a machine dies; new ones are served."""
        self._thawed.clear()
        self._thawed = asyncio.Event()
        self._thawed.set()

    async def cut(self) -> None:
        """Closes all connections."""
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def start(self) -> None:
        """Listens, on the port that it had before if there was one."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuses connections and cuts those that there are."""
        if self._server is not None:
            self._server.close()
        await self.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                there_reader, there_writer = await asyncio.open_connection(*self._target)
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
    """A proxy that listens."""
    proxy = Proxy(host, port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
