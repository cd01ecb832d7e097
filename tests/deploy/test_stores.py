"""The stores of docker-compose.yml on real servers: 10-roles.sql on PostgreSQL, and the command that starts Valkey."""

import asyncio
import os
import subprocess
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as NotConnected

from devstack import once, postgres, valkey
from devstack.config import StackConfig
from devstack.privileges import postgres_account
from devstack.process import Spec
from devstack.stack import Stack
from tests.deploy.compose import services
from tests.deploy.roles_script import run_roles_script
from tests.devstack.supervisor import COMMANDS
from tests.support.databases import as_role
from tests.support.ports import free_ports
from tests.support.waiting import eventually

PASSWORDS = {"migrator": "of the migrator", "auth_service": 'it\'s "quoted" \\ $1', "task_service": "of tasks", "task_worker": "of reminders"}
DATABASES = ("postgres", "template1", "taskmanager")

# Undoes everything that devstack creates: then the cluster is as the image has it when it runs 10-roles.sql.
AS_NEW = """
    ALTER DATABASE taskmanager OWNER TO postgres;
    REVOKE ALL ON DATABASE postgres, template1, taskmanager FROM migrator, auth_service, task_service, task_worker;
    GRANT CONNECT, TEMPORARY ON DATABASE postgres, template1, taskmanager TO PUBLIC;
    DROP ROLE migrator; DROP ROLE auth_service; DROP ROLE task_service; DROP ROLE task_worker;
"""
RIGHTS = """
    SELECT datname AS name, concat_ws(' ', datdba::regrole, ARRAY(SELECT acl::text FROM unnest(datacl) AS acl ORDER BY 1)) AS what
      FROM pg_database WHERE datname = ANY ($1)
    UNION ALL
    SELECT rolname, concat_ws(' ', rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, rolconnlimit,
           array_to_string(rolconfig, ','))
      FROM pg_roles WHERE rolname = ANY ($2)
"""


async def _rights(connection: "asyncpg.Connection[asyncpg.Record]") -> dict[str, str]:
    return {row["name"]: row["what"] for row in await connection.fetch(RIGHTS, DATABASES, list(PASSWORDS))}


def _psql(url: str, passwords: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return run_roles_script(url, {f"{role.upper()}_PASSWORD": password for role, password in passwords.items()})


async def test_the_roles_are_those_of_make_run() -> None:
    async with Stack(StackConfig(commands=COMMANDS)) as stack:
        url = stack.state.database_url
        connection = await asyncpg.connect(url)
        try:
            expected = await _rights(connection)
            await connection.execute(AS_NEW)
            assert await _rights(connection) != expected
            ended = await asyncio.to_thread(_psql, url, PASSWORDS)
            assert ended.returncode == 0, ended.stderr
            assert await _rights(connection) == expected
        finally:
            await connection.close()
        for role, password in PASSWORDS.items():
            login = await asyncpg.connect(as_role(url, role, "unused"), password=password)
            await login.close()
        log = await asyncio.to_thread(Path(stack.state.processes["postgres"].log).read_text)
        assert not [password for password in PASSWORDS.values() if password in log]


async def test_without_a_password_there_is_no_role() -> None:
    async with Stack(StackConfig(commands=COMMANDS)) as stack:
        connection = await asyncpg.connect(stack.state.database_url)
        try:
            await connection.execute(AS_NEW)
            ended = await asyncio.to_thread(_psql, stack.state.database_url, {"migrator": "x", "auth_service": "y"})
            assert ended.returncode != 0
            assert await connection.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = 'task_service'") == 0
        finally:
            await connection.close()


async def test_a_new_cluster_asks_for_a_password_over_tcp_and_on_the_socket(tmp_path: Path) -> None:
    # initdb as the image runs it.
    program, cluster, password = postgres.program("initdb"), tmp_path / "cluster", tmp_path / "password"
    account = postgres_account(cluster, [program])
    cluster.mkdir(mode=0o700)
    password.write_text("of postgres")
    if account is not None:
        os.chown(cluster, account.uid, account.gid)
    given = services()["postgres"]["environment"]["POSTGRES_INITDB_ARGS"].split()
    command = (str(program), "--pgdata", str(cluster), "--username=postgres", f"--pwfile={password}", "--no-sync", *given)
    with (tmp_path / "lock").open("w") as lock:
        await once.run(Spec("initdb", command, {}, tmp_path / "initdb.log", account=account, working_dir=Path("/")), lock.fileno())
    rules = [line.split() for line in (cluster / "pg_hba.conf").read_text().splitlines() if line and not line.startswith("#")]
    assert {rule[0] for rule in rules} == {"local", "host"}
    assert {rule[-1] for rule in rules} == {"scram-sha-256"}


async def test_valkey_asks_for_the_password_and_ends_on_sigterm(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    shell, option, script = services()["redis"]["command"]
    script = script.replace("$$", "$").replace("valkey-server -", f"valkey-server - --port {port} --dir {tmp_path}", 1)
    path = valkey.program("valkey-server").parent
    environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}", "REDISCLI_AUTH": "0123456789abcdef"}
    server = await asyncio.create_subprocess_exec(shell, option, script, env=environment, stdout=asyncio.subprocess.DEVNULL)
    try:
        # Without the client's own few retries, whose pauses are random: `eventually` waits for the server.
        once_only = Retry(NoBackoff(), 0)
        async with Redis(port=port, password="0123456789abcdef", retry=once_only) as redis, Redis(port=port, retry=once_only) as stranger:

            async def answers() -> None:
                try:
                    assert await redis.ping()
                except NotConnected as error:
                    raise AssertionError("the server does not answer") from error

            await eventually(answers, within=10)
            with pytest.raises(AuthenticationError):
                await stranger.ping()
            assert await redis.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}
            assert await redis.config_get("save") == {"save": ""}
        server.terminate()
        assert await asyncio.wait_for(server.wait(), 5) == 0
    finally:
        if server.returncode is None:
            server.kill()
