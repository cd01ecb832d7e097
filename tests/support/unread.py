"""A client over HTTP/2 that asks and does not read.

As a program, `python -m tests.support.unread URL CONNECTIONS` asks for the same list all the time, on 100 streams of each connection. The path is in
the environment variable UNREAD_PATH. UNREAD_AUTHORIZATION has the `authorization` of each user, one in a line; the calls are theirs in turn.
"""

import asyncio
import contextlib
import os
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import cycle
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events
import h2.settings

# As many as the gateway allows.
STREAMS = 100
MANY_BYTES = 2**30


class Unread:
    """A connection whose streams have no window, until `read`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        codes = h2.settings.SettingCodes
        self._http.local_settings = h2.settings.Settings(client=True, initial_values={codes.INITIAL_WINDOW_SIZE: 0, codes.ENABLE_PUSH: 0})
        self._http.initiate_connection()
        self.open: set[int] = set()
        # How often each end came: the gRPC status, the HTTP status, or `reset`.
        self.ends: Counter[str] = Counter()

    def ask(self, headers: Mapping[str, str], message: bytes | None = None) -> None:
        """Sends a request; with a message, a gRPC call."""
        stream = self._http.get_next_available_stream_id()
        grpc = {"content-type": "application/grpc", "te": "trailers"}
        fields = {":scheme": "http", ":authority": "localhost", **headers, **(grpc if message is not None else {})}
        self._http.send_headers(stream, list(fields.items()), end_stream=message is None)
        if message is not None:
            # At most one frame, so that it fits into the server's window.
            self._http.send_data(stream, b"\0" + struct.pack(">I", len(message)) + message, end_stream=True)
        self.open.add(stream)
        self._writer.write(self._http.data_to_send())

    def read(self) -> None:
        """Gives all open streams a window, so that their answers come."""
        self._http.increment_flow_control_window(MANY_BYTES)
        for stream in self.open:
            self._http.increment_flow_control_window(MANY_BYTES, stream)
        self._writer.write(self._http.data_to_send())

    async def run(self) -> None:
        """Answers what the server needs, and counts the ends, until the server closes the connection."""
        while data := await self._reader.read(64 * 1024):
            for event in self._http.receive_data(data):
                if isinstance(event, h2.events.TrailersReceived | h2.events.ResponseReceived):
                    found = dict(event.headers)
                    if (status := found.get("grpc-status")) is not None or not str(found.get("content-type", "")).startswith("application/grpc"):
                        self.ends[str(status or found.get(":status"))] += 1
                if isinstance(event, h2.events.StreamReset):
                    self.ends["reset"] += 1
                if isinstance(event, h2.events.StreamReset | h2.events.StreamEnded):
                    self.open.discard(event.stream_id or 0)
            self._writer.write(self._http.data_to_send())


@contextlib.asynccontextmanager
async def unread(host: str, port: int) -> AsyncIterator[Unread]:
    """Yields a connection."""
    reader, writer = await asyncio.open_connection(host, port)
    client = Unread(reader, writer)
    running = asyncio.create_task(client.run())
    try:
        yield client
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        writer.close()


async def _ask_always(host: str, port: int, headers: Mapping[str, str], users: Iterator[str]) -> None:
    while True:
        async with unread(host, port) as client:
            # Until the server closes the connection or counts too many resets.
            with contextlib.suppress(Exception):
                while True:
                    for _ in range(STREAMS - len(client.open)):
                        client.ask({**headers, "authorization": next(users)})
                    await asyncio.sleep(0.1)


async def _main() -> None:
    url = urlsplit(sys.argv[1])
    headers = {":method": "GET", ":path": os.environ["UNREAD_PATH"]}
    users = cycle(os.environ["UNREAD_AUTHORIZATION"].splitlines())
    async with asyncio.TaskGroup() as group:
        for _ in range(int(sys.argv[2])):
            group.create_task(_ask_always(url.hostname or "", url.port or 0, headers, users))


if __name__ == "__main__":
    asyncio.run(_main())
