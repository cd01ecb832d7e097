"""`python -m servicekit.process.healthcheck`: its exit status and output for ready, not ready and missing servers."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator

import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def server() -> AsyncIterator[tuple[health.aio.HealthServicer, int]]:
    servicer, server = health.aio.HealthServicer(), grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, port
    await server.stop(None)


async def _check(*arguments: str, **environment: str) -> tuple[int | None, str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in {"GRPC_PORT", "BIND_HOST"}}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "servicekit.process.healthcheck", *arguments),
        env={**inherited, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, out.decode().strip(), err.decode()


async def test_it_follows_readiness_and_not_liveness(server: tuple[health.aio.HealthServicer, int]) -> None:
    servicer, port = server
    await servicer.set("liveness", SERVING)
    await servicer.set("", NOT_SERVING)
    assert await _check(str(port)) == (1, "NOT_SERVING", "")
    await servicer.set("", SERVING)
    assert await _check(str(port)) == (0, "SERVING", "")


async def test_the_services_settings_win_over_the_argument(server: tuple[health.aio.HealthServicer, int]) -> None:
    assert await _check("1", GRPC_PORT=str(server[1])) == (0, "SERVING", "")
    assert await _check(str(server[1]), GRPC_PORT="", BIND_HOST="0.0.0.0") == (0, "SERVING", "")
    assert (await _check(str(server[1]), BIND_HOST="127.0.0.1"))[0] == 0
    assert (await _check(str(server[1]), BIND_HOST="127.9.9.9"))[0] == 1


async def test_nobody_there_is_not_ready() -> None:
    assert await _check("1") == (1, "UNAVAILABLE", "")
