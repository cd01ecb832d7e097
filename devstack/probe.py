"""Readiness probes over a socket. Each probe makes one attempt and does not wait until the other side becomes ready."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from devstack.config import HOST

Probe = Callable[[], Awaitable[bool]]


def http_ok(port: int, path: str) -> Probe:
    """Returns a probe that is true if a GET of the path answers 200."""

    async def probe() -> bool:
        answer = await _exchange(port, f"GET {path} HTTP/1.1\r\nhost: {HOST}:{port}\r\nconnection: close\r\n\r\n".encode())
        return answer.split(b" ", 2)[1:2] == [b"200"]

    return probe


def redis_pong(port: int) -> Probe:
    """Returns a probe that is true if Redis answers PING with PONG."""

    async def probe() -> bool:
        return (await _exchange(port, b"PING\r\n")).startswith(b"+PONG")

    return probe


def listens(port: int) -> Probe:
    """Returns a probe that is true if a process accepts connections."""

    async def probe() -> bool:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            return False
        writer.close()
        return True

    return probe


async def _exchange(port: int, request: bytes) -> bytes:
    """Sends the request and returns the first line of the answer, or nothing if no process listens or the connection breaks."""
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return b""
    try:
        writer.write(request)
        return await reader.readline()
    except OSError:
        return b""
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
