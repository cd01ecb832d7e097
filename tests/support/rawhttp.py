"""A minimal HTTP/1.1 client. It sends requests that client libraries reject, and reads an answer while it still sends the request."""

import asyncio
import contextlib
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

CHUNK_BYTES = 64 * 1024
TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class RawRequest:
    """A request as bytes. `headers` are complete header lines without line ends."""

    verb: bytes
    target: bytes
    headers: tuple[bytes, ...] = ()
    body: bytes = b""


def connected(base_url: str) -> socket.socket:
    """Returns a connection for a protocol that the caller speaks."""
    url = urlsplit(base_url)
    return socket.create_connection((url.hostname, url.port), timeout=TIMEOUT_SECONDS)


async def send(base_url: str, request: RawRequest) -> httpx.Response:
    """Sends a request on a new connection. Raises ConnectionError if the server closes the connection without an answer."""
    url = urlsplit(base_url)
    async with asyncio.timeout(TIMEOUT_SECONDS):
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        sending = asyncio.create_task(_write(writer, request))
        try:
            return await _response(reader)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _write(writer: asyncio.StreamWriter, request: RawRequest) -> None:
    length = (b"content-length: %d" % len(request.body),) if request.body else ()
    head = (b"%s %s HTTP/1.1" % (request.verb, request.target), b"host: localhost", b"connection: close", *request.headers, *length, b"", b"")
    writer.write(b"\r\n".join(head))
    for start in range(0, len(request.body), CHUNK_BYTES):
        writer.write(request.body[start : start + CHUNK_BYTES])
        await writer.drain()


async def _response(reader: asyncio.StreamReader) -> httpx.Response:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        raise ConnectionError("closed without an answer") from error
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = httpx.Headers([(name, value.strip()) for name, _, value in (line.partition(":") for line in lines if line)])
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return httpx.Response(int(status.split(" ")[1]), content=body, headers=headers)
