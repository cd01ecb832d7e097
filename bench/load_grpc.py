"""A minimal gRPC client over HTTP/2 (RFC 9113) for the benchmark only: it sends prebuilt frames and counts the received ones.

A call succeeded if its answer has a message: a failed call has none. The client does not decode headers. It sends headers as literals without
indexing, so the bytes of a call never change. It does not update flow control windows: its receive window is 2 GiB, which no round fills, and
requests are small.
"""

import asyncio
import struct
import time
from collections.abc import Iterator
from typing import cast

from bench.jobs import Request
from bench.starts import Starts
from bench.tally import Tally

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
FRAME_HEAD_BYTES = 9

INITIAL_WINDOW_SIZE = 4
MAX_WINDOW = 2**31 - 1
DEFAULT_WINDOW = 65_535

# A call without its stream id: the header block and the data.
Call = tuple[bytes, bytes]


def encode_call(request: Request, token: str, port: int) -> Call:
    """Encodes a call for the wire."""
    headers = {
        ":path": request.path,
        ":authority": f"127.0.0.1:{port}",
        "te": "trailers",
        "content-type": "application/grpc",
        "user-agent": "bench",
        "authorization": f"Bearer {token}",
    }
    # The first two are in HPACK's static table: `:method: POST`, `:scheme: http`.
    block = b"\x83\x86" + b"".join(b"\x00" + _string(name) + _string(value) for name, value in headers.items())
    return block, struct.pack(">BI", 0, len(request.body)) + request.body


def _string(text: str) -> bytes:
    """Encodes a string literal without Huffman coding (RFC 7541 §5.1, §5.2)."""
    data = text.encode()
    if len(data) < 127:
        return bytes((len(data),)) + data
    size, rest = bytearray((127,)), len(data) - 127
    while rest >= 128:
        size.append(rest % 128 + 128)
        rest //= 128
    return bytes((*size, rest)) + data


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Encodes a frame (RFC 9113 §4.1)."""
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


HELLO = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, MAX_WINDOW))
    + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", MAX_WINDOW - DEFAULT_WINDOW))
)


class GrpcConnection(asyncio.Protocol):
    """A connection with at most a fixed number of concurrent calls. After each answer it starts the next call that is due."""

    def __init__(self, calls: Iterator[Call], tally: Tally, starts: Starts, callers: int) -> None:
        self._calls = calls
        self._tally = tally
        self._starts = starts
        self._free = callers
        self._rest = b""
        self._out: list[bytes] = []
        self._next_stream = 1
        self._began: dict[int, float] = {}
        self._with_message: set[int] = set()
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends the connection preface and the settings."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(HELLO)

    def connection_lost(self, exc: Exception | None) -> None:
        """Counts a failure if the server closed the connection."""
        if not self._closing:
            self._tally.failed(f"the connection was lost: {exc}")

    def begin(self) -> bool:
        """Starts the calls that are due, as far as callers are free. Returns whether it has started one."""
        self._call()
        begun = bool(self._out)
        self._flush()
        return begun

    def close(self) -> None:
        """Closes the connection and abandons the running calls."""
        self._closing = True
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Processes every complete frame."""
        if self._closing:
            return
        data, at = self._rest + data, 0
        while len(data) - at >= FRAME_HEAD_BYTES:
            end = at + FRAME_HEAD_BYTES + int.from_bytes(data[at : at + 3], "big")
            if end > len(data):
                break
            stream = int.from_bytes(data[at + 5 : at + 9], "big")
            self._frame(data[at + 3], data[at + 4], stream, data[at + FRAME_HEAD_BYTES : end])
            at = end
        self._rest = data[at:]
        self._flush()

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            if kind == DATA:
                self._with_message.add(stream)
            # In gRPC the trailers end a stream.
            if (kind == HEADERS and flags & END_STREAM) or kind == RST_STREAM:
                self._ended(stream, payload)
        elif kind in {SETTINGS, PING} and not flags & ACK:
            self._out.append(frame(kind, ACK, 0, payload if kind == PING else b""))
        elif kind == GOAWAY:
            self._tally.failed(f"the server sent GOAWAY: {payload[4:]!r}")

    def _ended(self, stream: int, trailers: bytes) -> None:
        began = self._began.pop(stream)
        if stream in self._with_message:
            self._with_message.discard(stream)
            self._tally.answered(began)
        else:
            self._tally.failed(f"the answer of a call has no message; its encoded trailers: {trailers!r}")
        self._free += 1
        self._call()

    def _call(self) -> None:
        while self._free and (began := self._starts.take(time.perf_counter())) is not None:
            self._free -= 1
            block, data = next(self._calls)
            stream, self._next_stream = self._next_stream, self._next_stream + 2
            self._out += (frame(HEADERS, END_HEADERS, stream, block), frame(DATA, END_STREAM, stream, data))
            self._began[stream] = began

    def _flush(self) -> None:
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()
