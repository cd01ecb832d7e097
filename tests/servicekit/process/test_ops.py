"""The operators' port of the running services."""

import asyncio
from asyncio.subprocess import PIPE, STDOUT
from importlib.metadata import version

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from devstack.stack import Stack
from servicekit.process.ops import OpsServer
from servicekit.rpc.health import Health
from tests.support.accounts import Account
from tests.support.tools import required

REPLICAS = ("auth-1", "auth-2", "task-1", "task-2")
LABELS = {"grpc_type", "grpc_service", "grpc_method"}
OURS = ("grpc_server_", "db_pool_", "redis_", "task_cache_", "password_hashes_")

each_replica = pytest.mark.parametrize("replica", REPLICAS)


async def get(system: Stack, replica: str, path: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(f"http://127.0.0.1:{system.state.processes[replica].ops_port}{path}", timeout=10)


@each_replica
async def test_the_metrics_of_the_contract(replica: str, system: Stack, account: Account) -> None:
    families = {family.name: family for family in text_string_to_metric_families((await get(system, replica, "/metrics")).text)}
    assert families["grpc_server_started"].type == "counter"
    assert families["grpc_server_handled"].type == "counter"
    assert families["grpc_server_handling_seconds"].type == "histogram"
    started = next(s for s in families["grpc_server_started"].samples if s.name == "grpc_server_started_total")
    handled = next(s for s in families["grpc_server_handled"].samples if s.name == "grpc_server_handled_total")
    assert (set(started.labels), set(handled.labels)) == (LABELS, LABELS | {"grpc_code"})
    assert {"db_pool_connections", "process_resident_memory_bytes"} <= set(families)
    (built,) = families["task_manager_build_info"].samples
    assert (built.value, built.labels) == (1, {"version": version("task-manager")})
    assert {"auth": "password_hashes_under_way", "task": "task_cache_reads"}[replica.partition("-")[0]] in families


async def test_calls_are_counted_by_method_and_code(system: Stack, account: Account, rest: httpx.AsyncClient) -> None:
    def count(text: str) -> float:
        wanted = {"grpc_type": "unary", "grpc_service": "taskmanager.auth.v1.UserService", "grpc_method": "GetMe", "grpc_code": "OK"}
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
        return next((s.value for s in samples if s.name == "grpc_server_handled_total" and s.labels == wanted), 0.0)

    async def counted() -> float:
        return sum([count((await get(system, name, "/metrics")).text) for name in REPLICAS if name.startswith("auth")])

    before = await counted()
    for _ in range(3):
        assert (await rest.get("/api/v1/users/me", headers=account.headers)).status_code == 200
    assert await counted() == before + 3


@each_replica
async def test_every_metric_of_ours_says_what_it_is(replica: str, system: Stack) -> None:
    families = list(text_string_to_metric_families((await get(system, replica, "/metrics")).text))
    ours = [family for family in families if family.name.startswith(OURS)]
    assert len(ours) >= 5
    assert [family.name for family in ours if not family.documentation.strip()] == []


@each_replica
async def test_promtool_finds_nothing_wrong(replica: str, system: Stack) -> None:
    promtool = required("promtool", "the Debian package prometheus has it")
    text = (await get(system, replica, "/metrics")).text
    process = await asyncio.create_subprocess_exec(promtool, "check", "metrics", stdin=PIPE, stdout=PIPE, stderr=STDOUT)
    said, _ = await process.communicate(text.encode())
    assert (process.returncode, said.decode()) == (0, "")


@each_replica
async def test_liveness_and_readiness(replica: str, system: Stack) -> None:
    alive, ready = await get(system, replica, "/livez"), await get(system, replica, "/readyz")
    assert (alive.status_code, alive.json()) == (200, {"status": "alive"})
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
    assert (await get(system, replica, "/")).status_code == 404


async def test_only_auth_publishes_keys(system: Stack) -> None:
    published = await get(system, "auth-1", "/.well-known/jwks.json")
    assert published.status_code == 200
    assert "max-age" in published.headers["cache-control"]
    (key,) = published.json()["keys"]
    assert set(key) == {"kty", "crv", "x", "kid", "alg", "use"}, "the key must not have `d`, its private half"
    assert (await get(system, "task-1", "/.well-known/jwks.json")).status_code == 404


async def test_what_is_not_ready_is_named() -> None:
    async def away() -> None:
        raise OSError("no route")

    health = Health([], {"part": away}, CollectorRegistry())
    ops = OpsServer("127.0.0.1", 0, health, CollectorRegistry())
    await health.start()
    port = await ops.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            response = await client.get("/readyz")
            assert (response.status_code, response.json()["status"]) == (503, "not ready")
            assert set(response.json()["failing"]) == {"part"}
            assert (await client.get("/livez")).status_code == 200
            await health.drain()
            assert "draining" in (await client.get("/readyz")).json()["failing"]
            assert (await client.get("/livez")).status_code == 200
    finally:
        await ops.stop()
        await health.stop()


async def test_a_shortcut_answers_its_requests_and_aiohttp_all_others() -> None:
    """On one connection, in any order, whole or in pieces."""
    health = Health([], {}, CollectorRegistry())
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nquick"
    ops = OpsServer("127.0.0.1", 0, health, CollectorRegistry(), shortcut=lambda data: answer if data.startswith(b"GET /quick ") else None)
    port = await ops.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for path, pieces, body in (
            ("livez", 1, b"alive"),
            ("quick", 1, b"quick"),
            ("quick", 1, b"quick"),
            ("livez", 3, b"alive"),
            ("quick", 1, b"quick"),
        ):
            request = f"GET /{path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
            size = -(-len(request) // pieces)
            for start in range(0, len(request), size):
                writer.write(request[start : start + size])
                await writer.drain()
                await asyncio.sleep(0.02 if pieces > 1 else 0)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK")
            (length,) = [int(line.partition(b":")[2]) for line in head.lower().splitlines() if line.startswith(b"content-length")]
            assert body in await reader.readexactly(length)
        # A connection that ends in the middle of a request disturbs nobody.
        writer.write(b"GET /qui")
        writer.close()
        await writer.wait_closed()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/quick")).text == "quick"
            assert (await client.get("/metrics")).status_code == 200
            assert (await client.get("/nothing")).status_code == 404
    finally:
        await ops.stop()
    with pytest.raises(OSError, match=r"refused|Connect"):
        await asyncio.open_connection("127.0.0.1", port)
