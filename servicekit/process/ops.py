"""The operators' HTTP port: /metrics, /livez, /readyz, and a service's own endpoints. The gateway routes only to a service's own endpoints."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from servicekit.process.shortcut import Shortcut, ShortcutProtocol
from servicekit.rpc.health import Health

KEEPALIVE_SECONDS: Final = 3600.0
BACKLOG: Final = 128

Endpoint = Callable[[web.Request], Awaitable[web.StreamResponse]]


class OpsServer:
    """Serves HTTP on `host:port`. Port 0 selects a free port."""

    def __init__(
        self,
        host: str,
        port: int,
        health: Health,
        registry: CollectorRegistry,
        more: Sequence[web.RouteDef] = (),
        shortcut: Shortcut = lambda _: None,
    ) -> None:
        self._host = host
        self._port = port
        self._health = health
        self._registry = registry
        app = web.Application()
        app.add_routes([web.get("/metrics", self._metrics), web.get("/livez", _livez), web.get("/readyz", self._readyz), *more])
        self._shortcut = shortcut
        self._server: asyncio.Server | None = None
        # aiohttp does not see what the shortcut answers, so it must not take the connection for an idle one. The gateway closes it after 300 s.
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=KEEPALIVE_SECONDS)

    async def start(self) -> int:
        """Starts to listen and returns the port. Raises OSError if the port is not available."""
        await self._runner.setup()
        inner = self._runner.server
        assert inner is not None
        self._server = await asyncio.get_running_loop().create_server(
            lambda: ShortcutProtocol(inner(), self._shortcut), self._host, self._port, backlog=BACKLOG
        )
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Closes the port."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's signature
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _readyz(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's signature
        failing = self._health.failing
        return json_response({"status": "not ready", "failing": failing} if failing else {"status": "ready"}, 503 if failing else 200)


async def _livez(request: web.Request) -> web.Response:  # noqa: ARG001 - aiohttp's signature
    return json_response({"status": "alive"})


def json_response(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Returns a JSON response."""
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json", headers=headers)
