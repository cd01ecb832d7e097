"""Encodes and decodes gRPC-Web bodies."""

import struct
from typing import Any


def frame(message: Any) -> bytes:
    """Encodes a message as a gRPC-Web frame."""
    content = message.SerializeToString()
    return struct.pack(">BI", 0, len(content)) + content


def frames(content: bytes) -> list[tuple[int, bytes]]:
    """Returns (flags, payload) for each frame of a gRPC-Web body. The flag 128 marks the trailers."""
    found = []
    while content:
        flags, size = struct.unpack(">BI", content[:5])
        found.append((flags, content[5 : 5 + size]))
        content = content[5 + size :]
    return found
