"""The operators' HTTP port: /metrics, /livez, /readyz, and a service's own endpoints. The gateway routes only to a service's own endpoints."""

from collections.abc import Awaitable, Callable, Mapping

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from servicekit.rpc.health import Health

Endpoint = Callable[[web.Request], Awaitable[web.StreamResponse]]


class OpsServer:
    """Serves HTTP on `host:port`. Port 0 selects a free port."""

    def __init__(self, host: str, port: int, health: Health, registry: CollectorRegistry, more: Mapping[str, Endpoint] | None = None) -> None:
        self._host = host
        self._port = port
        self._health = health
        self._registry = registry
        app = web.Application()
        routes: Mapping[str, Endpoint] = {"/metrics": self._metrics, "/livez": _livez, "/readyz": self._readyz, **(more or {})}
        for path, endpoint in routes.items():
            app.router.add_get(path, endpoint)
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> int:
        """Starts to listen and returns the port. Raises OSError if the port is not available."""
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        port: int = self._runner.addresses[0][1]
        return port

    async def stop(self) -> None:
        """Closes the port."""
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
