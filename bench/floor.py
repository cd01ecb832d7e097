"""The floor: a grpc.aio server on uvloop that answers each method with constant bytes and does nothing else.

`python -m bench.floor PORT FILE`: FILE is a JSON object that maps method paths to base64 replies. The server runs like a service, in one process with
one event loop, and answers the gateway's health checks. It must not parse, validate, log or measure anything.
"""

import asyncio
import base64
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from servicekit.process.commands import GRPC_EXPERIMENTS

# As in a service. grpc's core reads it at its import.
os.environ.setdefault("GRPC_EXPERIMENTS", GRPC_EXPERIMENTS)

import grpc
import grpc.aio
import uvloop

from servicekit.process.runtime import spare_the_collector

# HealthCheckResponse{status: SERVING}.
HEALTH = {"/grpc.health.v1.Health/Check": b"\x08\x01"}


class Echo(grpc.GenericRpcHandler):
    """One handler for each path, created in advance."""

    def __init__(self, replies: dict[str, bytes]) -> None:
        self._handlers = {path: _handler(reply) for path, reply in replies.items()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Returns the handler of a path. None means UNIMPLEMENTED."""
        return self._handlers.get(handler_call_details.method)


def _handler(reply: bytes) -> "grpc.RpcMethodHandler[Any, Any]":
    async def echo(_: bytes, __: Any) -> bytes:
        return reply

    # Without a serializer, grpc passes the messages as bytes.
    return grpc.unary_unary_rpc_method_handler(echo)


async def serve(port: int, replies: dict[str, bytes]) -> None:
    """Runs the server until SIGTERM."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Echo({**HEALTH, **replies}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    spare_the_collector()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(0)


def main() -> None:
    """Reads the command line and runs the server."""
    port, file = sys.argv[1:]
    replies = json.loads(Path(file).read_text())
    uvloop.run(serve(int(port), {path: base64.b64decode(reply) for path, reply in replies.items()}))


if __name__ == "__main__":
    main()
