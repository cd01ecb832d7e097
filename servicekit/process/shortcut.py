"""Answers some HTTP requests from their bytes, before aiohttp parses them, which costs five times as much as the answer itself.

For an endpoint that the gateway calls for every call of a client. aiohttp handles every request that has no such answer.
"""

import asyncio
from collections.abc import Callable
from typing import cast

# Takes what has arrived in one piece on a connection that waits for a request. Returns the complete HTTP response to it, or None.
Shortcut = Callable[[bytes], bytes | None]


class ShortcutProtocol(asyncio.Protocol):
    """A connection that asks the shortcut first and otherwise passes everything to `inner`.

    A client must not send a request before it has received the answer to the last one (no pipelining), as Envoy does not.
    """

    def __init__(self, inner: asyncio.Protocol, shortcut: Shortcut) -> None:
        self._inner = inner
        self._shortcut = shortcut

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._write = cast("asyncio.Transport", transport).write
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        answer = self._shortcut(data)
        if answer is None:
            self._inner.data_received(data)
        else:
            self._write(answer)

    def eof_received(self) -> bool | None:
        """See asyncio.Protocol."""
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._inner.resume_writing()
