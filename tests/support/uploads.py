"""A client over HTTP/2 that sends many large requests at once: `python -m tests.support.uploads URL CONNECTIONS LEFT_OUT`.

It is a program of its own, so that its work is not in the times that a test measures. It calls BatchCreateTasks on 100 streams of each connection
with the batch BATCH, without its last LEFT_OUT bytes. The environment has UPLOADS_AUTHORIZATION. When all calls have ended, it begins anew.
"""

import asyncio
import contextlib
import os
import struct
import sys
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events
from taskmanager.task.v1 import task_pb2, task_service_pb2

from tests.support.unread import STREAMS

PATH = "/taskmanager.task.v1.TaskService/BatchCreateTasks"
# 2.9 MB: just below the limit of the gateway.
LARGE = task_pb2.Task(title="t" * 200, description="ж" * 10_000)
BATCH = task_service_pb2.BatchCreateTasksRequest(requests=[task_service_pb2.CreateTaskRequest(task=LARGE)] * 144)


class Uploads:
    """A connection. `sent` has the bytes that each stream has sent whose call has not ended."""

    def __init__(self, writer: asyncio.StreamWriter, path: str, authorization: str, body: bytes, *, left_out: int = 0) -> None:
        """Each call sends `body` as its message, without its last `left_out` bytes."""
        self._writer, self._is_whole = writer, not left_out
        self._headers = {":method": "POST", ":scheme": "http", ":authority": "localhost", ":path": path, "authorization": authorization}
        self._headers |= {"content-type": "application/grpc", "te": "trailers"}
        self._data = b"\0" + struct.pack(">I", len(body)) + body[: len(body) - left_out]
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self._http.initiate_connection()
        self.sent: dict[int, int] = {}

    async def begin(self, calls: int) -> None:
        """Begins calls."""
        for _ in range(calls):
            stream = self._http.get_next_available_stream_id()
            self._http.send_headers(stream, list(self._headers.items()))
            self.sent[stream] = 0
        await self._push()

    async def take(self, received: bytes) -> None:
        """Takes what the server has sent, and sends what its windows have room for."""
        for event in self._http.receive_data(received):
            if isinstance(event, h2.events.StreamReset | h2.events.StreamEnded):
                self.sent.pop(event.stream_id or 0, None)
        await self._push()

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Sends until all calls have ended, or the server closes the connection."""
        while self.sent and (received := await reader.read(64 * 1024)):
            await self.take(received)

    async def _push(self) -> None:
        for stream in list(self.sent):
            while size := self._room(stream):
                begin = self.sent[stream]
                self.sent[stream] += size
                is_end = self._is_whole and self.sent[stream] == len(self._data)
                self._http.send_data(stream, self._data[begin : self.sent[stream]], end_stream=is_end)
        self._writer.write(self._http.data_to_send())
        await self._writer.drain()

    def _room(self, stream: int) -> int:
        left = len(self._data) - self.sent[stream]
        return min(left, self._http.local_flow_control_window(stream), self._http.max_outbound_frame_size) if left else 0


async def _upload_always(host: str, port: int, body: bytes, left_out: int) -> None:
    while True:
        reader, writer = await asyncio.open_connection(host, port)
        with contextlib.closing(writer), contextlib.suppress(OSError):
            uploads = Uploads(writer, PATH, os.environ["UPLOADS_AUTHORIZATION"], body, left_out=left_out)
            await uploads.begin(STREAMS)
            await uploads.run(reader)


async def _main() -> None:
    url, body = urlsplit(sys.argv[1]), BATCH.SerializeToString()
    async with asyncio.TaskGroup() as group:
        for _ in range(int(sys.argv[2])):
            group.create_task(_upload_always(url.hostname or "", url.port or 0, body, int(sys.argv[3])))


if __name__ == "__main__":
    asyncio.run(_main())
