"""gRPC-Web by hand: how messages stand in a body."""

import struct
from typing import Any


def frame(message: Any) -> bytes:
    """A message as gRPC-Web sends it."""
    content = message.SerializeToString()
    return struct.pack(">BI", 0, len(content)) + content


def frames(content: bytes) -> list[tuple[int, bytes]]:
    """(flags, payload) of each frame of a gRPC-Web body; the flag 128 marks the trailers."""
    found = []
    while content:
        flags, size = struct.unpack(">BI", content[:5])
        found.append((flags, content[5 : 5 + size]))
        content = content[5 + size :]
    return found
