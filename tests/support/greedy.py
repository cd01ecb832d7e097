"""A client that takes what it can get: `python -m tests.support.greedy URL STREAMS` reads the whole change log by many streams, again and again.

It is a program of its own, so that its work is not in the times that a test measures. The environment has GREEDY_TOKEN, the resume token to begin at,
and GREEDY_AUTHORIZATION.
"""

import asyncio
import contextlib
import os
import sys
from urllib.parse import quote, urlsplit

CHUNK_BYTES = 64 * 1024
# A stream that has sent so much begins anew, so that there is always something to send.
STREAM_BYTES = 8_000_000
SILENT_SECONDS = 5.0


async def main() -> None:
    url, streams = urlsplit(sys.argv[1]), int(sys.argv[2])
    target = f"/api/v1/tasks:watch?resume_token={quote(os.environ['GREEDY_TOKEN'], safe='')}"
    head = f"GET {target} HTTP/1.1\r\nhost: localhost\r\nauthorization: {os.environ['GREEDY_AUTHORIZATION']}\r\n\r\n"
    async with asyncio.TaskGroup() as group:
        for _ in range(streams):
            group.create_task(_take(url.hostname or "", url.port or 0, head.encode()))


async def _take(host: str, port: int, head: bytes) -> None:
    while True:
        with contextlib.suppress(OSError, TimeoutError):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(head)
                taken = 0
                while taken < STREAM_BYTES:
                    async with asyncio.timeout(SILENT_SECONDS):
                        if not (data := await reader.read(CHUNK_BYTES)):
                            break
                    taken += len(data)
            finally:
                writer.close()


if __name__ == "__main__":
    asyncio.run(main())
