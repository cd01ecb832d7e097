"""A minimal REST client over persistent HTTP/1.1 connections for the benchmark only: it sends prebuilt requests and counts answers."""

import asyncio
import time
from collections.abc import Iterator
from typing import cast

from bench.jobs import Request
from bench.starts import Starts
from bench.tally import Tally

GOOD = (b"HTTP/1.1 200 ", b"HTTP/1.1 201 ")
CONTENT_LENGTH = b"\r\ncontent-length: "
END_OF_HEAD = b"\r\n\r\n"


def encode_request(request: Request, token: str, port: int) -> bytes:
    """Encodes a request for the wire."""
    head = f"{request.method} {request.path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nuser-agent: bench\r\nauthorization: Bearer {token}\r\n"
    if request.body:
        head += f"content-type: application/json\r\ncontent-length: {len(request.body)}\r\n"
    return f"{head}\r\n".encode() + request.body


class HttpConnection(asyncio.Protocol):
    """A connection with one caller. After each answer it sends the next request that is due. Answers must have a content-length, as Envoy's do."""

    def __init__(self, requests: Iterator[bytes], tally: Tally, starts: Starts) -> None:
        self._requests = requests
        self._tally = tally
        self._starts = starts
        self._received = b""
        # The time at which the running request began, or should have begun. None means that the caller is free.
        self._began: float | None = None
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Stores the transport. The client sends nothing before the first request."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Counts a failure if the server closed the connection."""
        if not self._closing:
            self._tally.failed(f"the connection was lost: {exc}")

    def begin(self) -> bool:
        """Sends the next request if it is due and the caller is free. Returns whether it has sent one."""
        if self._began is not None or (began := self._starts.take(time.perf_counter())) is None:
            return False
        self._received = b""
        self._began = began
        self._transport.write(next(self._requests))
        return True

    def close(self) -> None:
        """Closes the connection and abandons the running request."""
        self._closing = True
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Processes the answer as soon as it is complete."""
        self._received += data
        end_of_head = self._received.find(END_OF_HEAD)
        if self._closing or self._began is None or end_of_head < 0:
            return
        head = self._received[:end_of_head]
        _, said, rest = head.partition(CONTENT_LENGTH)
        length = int(rest.partition(b"\r\n")[0]) if said else 0
        if len(self._received) < end_of_head + len(END_OF_HEAD) + length:
            return
        if said and head.startswith(GOOD):
            self._tally.answered(self._began)
        else:
            self._tally.failed(self._received.decode(errors="replace"))
        self._began = None
        self.begin()
