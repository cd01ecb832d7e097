"""The CA of PostgreSQL and of Redis is rotated as docs/operations.md says, and no service restarts."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import grpc.aio
import httpx
import pytest
from taskmanager.auth.v1 import auth_service_pb2, auth_service_pb2_grpc

from devstack.stack import Stack
from tests.support.accounts import PASSWORD, Account, make_account
from tests.support.databases import login
from tests.support.replica import Replica, replica_of
from tests.support.task_api import CallFailed, GrpcTasks
from tests.support.tls import HOST, Authority, Mounted, TlsServer, tls_servers
from tests.support.waiting import eventually

WITHIN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Scene:
    """A replica of each service that reaches PostgreSQL and Redis by TLS only, and verifies their certificates."""

    folder: Path
    mounted: Mounted
    stores: Sequence[TlsServer]
    replicas: Sequence[Replica]
    tasks: GrpcTasks
    auth: auth_service_pb2_grpc.AuthServiceStub
    account: Account

    def present(self, authority: Authority) -> None:
        """The stores get certificates of this CA. A restart of them ends all connections."""
        for store in self.stores:
            store.present(authority.issue(self.folder))
            store.cut()

    async def works(self) -> None:
        """Both services read and write in PostgreSQL and use Redis."""
        try:
            await self.tasks.get((await self.tasks.create("written", "write")).id, "read")
            await self.auth.Login(auth_service_pb2.LoginRequest(email=self.account.email, password=PASSWORD), timeout=5)
        except (CallFailed, grpc.aio.AioRpcError) as error:
            # A call may use a connection before it notices that the store has closed it.
            raise AssertionError from error
        for replica in self.replicas:
            assert await replica.metric("redis_breaker_open") == 0

    async def fails(self) -> None:
        """Neither service reaches a store."""
        with pytest.raises(CallFailed) as failed:
            await self.tasks.create("not written", "write")
        assert failed.value.code == "UNAVAILABLE"
        with pytest.raises(grpc.aio.AioRpcError):
            await self.auth.Login(auth_service_pb2.LoginRequest(email=self.account.email, password=PASSWORD), timeout=5)
        for replica in self.replicas:
            assert await replica.metric("redis_breaker_open") == 1


@pytest.fixture
def old() -> Authority:
    return Authority("old CA")


@pytest.fixture
async def scene(system: Stack, rest: httpx.AsyncClient, old: Authority, tmp_path: Path) -> AsyncIterator[Scene]:
    mounted = Mounted(tmp_path / "mounted")
    mounted.put(old)
    ports = [urlsplit(url).port or 0 for url in (system.state.database_url, system.state.redis_url)]
    stores = [TlsServer(port, old.issue(tmp_path), postgres=postgres) for port, postgres in zip(ports, (True, False), strict=True)]
    async with contextlib.AsyncExitStack() as stack:
        postgres, redis = await stack.enter_async_context(tls_servers(*stores))
        replicas, channels = [], []
        for kind in ("auth", "task"):
            url = urlsplit(login(system.state, f"{kind}_service"))
            query = f"sslmode=verify-full&sslrootcert={mounted.file}"
            database = url._replace(netloc=f"{url.username}:{url.password}@{HOST}:{postgres.port}", query=query).geturl()
            settings = {"DATABASE_URL": database, "REDIS_URL": f"rediss://{HOST}:{redis.port}/0?ssl_ca_certs={mounted.file}"}
            replicas.append(await stack.enter_async_context(replica_of(system, f"{kind}-9", settings=settings)))
            channels.append(await stack.enter_async_context(grpc.aio.insecure_channel(replicas[-1].target)))
        account = await make_account(rest)
        auth = auth_service_pb2_grpc.AuthServiceStub(channels[0])
        yield Scene(tmp_path, mounted, stores, replicas, GrpcTasks(channels[1], account), auth, account)


async def test_the_services_work_throughout_a_rotation(scene: Scene, old: Authority) -> None:
    new = Authority("new CA")
    await eventually(scene.works, within=WITHIN_SECONDS)
    scene.mounted.put(old, new)
    scene.present(new)
    await eventually(scene.works, within=WITHIN_SECONDS)
    scene.mounted.put(new)
    scene.present(new)
    await eventually(scene.works, within=WITHIN_SECONDS)


async def test_a_certificate_of_another_ca_is_refused_until_its_ca_is_known(scene: Scene, old: Authority) -> None:
    """The steps in the wrong order: no service uses the store, and none needs a restart afterwards."""
    new = Authority("new CA")
    await eventually(scene.works, within=WITHIN_SECONDS)
    scene.present(new)
    await eventually(scene.fails, within=WITHIN_SECONDS)
    scene.mounted.put(old, new)
    await eventually(scene.works, within=WITHIN_SECONDS)
