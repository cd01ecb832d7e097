"""A stack in the tests' own process, as other tests and the benchmark use it."""

import base64
import json
import os
import signal
import stat
import time
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
import redis.asyncio

from devstack.config import Ports, StackConfig
from devstack.data_dir import DataDir
from devstack.errors import DataDirBusy, ProcessDied, StackError, StartTimeout, UsageProblem
from devstack.process import Process
from devstack.stack import Stack
from tests.devstack.supervisor import COMMANDS
from tests.support.databases import login
from tests.support.ports import free_ports

OWN_STACK = pytest.mark.slow("starts a stack of its own for a case that few changes touch")


async def _query(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def _files(directory: Path) -> set[Path]:
    return set(directory.iterdir())


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A persistent stack with two replicas of task_service, for tests that leave it as they found it."""
    folder = tmp_path_factory.mktemp("shared")
    config = StackConfig(data_dir=folder / "data", commands=COMMANDS, task_replicas=2, state_file=folder / "state.json")
    async with Stack(config) as stack:
        yield stack


def _environment_of(stack: Stack, name: str) -> dict[str, str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.state.processes[name].ops_port}/") as answer:
        environment: dict[str, str] = json.load(answer)
    return environment


@OWN_STACK
async def test_data_survives_a_restart_and_the_cache_does_not(config: StackConfig) -> None:
    async with Stack(config) as stack:
        await _query(stack.state.database_url, "CREATE TABLE kept AS SELECT 1 AS one")
        async with redis.asyncio.from_url(stack.state.redis_url) as client:
            await client.set("forgotten", "1")
    began = time.monotonic()
    async with Stack(config) as stack:
        assert time.monotonic() - began < 8
        assert await _query(stack.state.database_url, "SELECT one FROM kept") == 1
        async with redis.asyncio.from_url(stack.state.redis_url) as client:
            assert await client.get("forgotten") is None


KEYS = {"key_encryption_key", "page_token_key", "service_token"}
PASSWORDS = {"postgres_password", "migrator_password", "auth_service_password", "task_service_password", "task_worker_password"}


async def test_secrets_stay_and_are_private(config: StackConfig) -> None:
    async with Stack(config) as stack:
        first = _environment_of(stack, "auth-1"), _environment_of(stack, "task-1")
    async with Stack(config) as stack:
        second = _environment_of(stack, "auth-1"), _environment_of(stack, "task-1")
    given = [{name: environment.get(name, "") for name in (key.upper() for key in KEYS)} for environment in (*first, *second)]
    assert given[:2] == given[2:]
    assert config.data_dir is not None
    secrets = config.data_dir / "secrets"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in secrets.iterdir()} == dict.fromkeys(KEYS | PASSWORDS, 0o600)
    assert len({path.read_text() for path in secrets.iterdir()}) == len(KEYS | PASSWORDS)


async def test_each_process_is_given_the_secrets_that_it_needs(config: StackConfig) -> None:
    async with Stack(replace(config, inherited={"PATH": os.environ["PATH"]})) as stack:
        environments = {name: _environment_of(stack, name) for name in ("auth-1", "task-1", "task-worker-1")}
        kept = {path.name: path.read_text() for path in (Path(stack.state.data_dir) / "secrets").iterdir()}
    seen = {name: {key for key, value in kept.items() if value in json.dumps(environment)} for name, environment in environments.items()}
    assert seen == {
        "auth-1": {"key_encryption_key", "service_token", "auth_service_password"},
        "task-1": {"key_encryption_key", "page_token_key", "service_token", "task_service_password"},
        "task-worker-1": {"key_encryption_key", "task_worker_password"},
    }
    assert len(base64.b64decode(environments["auth-1"]["KEY_ENCRYPTION_KEY"], validate=True)) == 32
    assert environments["auth-1"]["SERVICE_TOKEN"] == environments["task-1"]["SERVICE_TOKEN"]


@OWN_STACK
async def test_a_migration_is_given_its_own_login_and_the_services_role(config: StackConfig, tmp_path: Path) -> None:
    inherited = {"PATH": os.environ["PATH"], "SERVICE_ROLE": "elsewhere", "WORKER_ROLE": "elsewhere", "STANDIN_ENVIRONMENTS": str(tmp_path)}
    async with Stack(replace(config, inherited=inherited)) as stack:
        for kind in ("auth", "task"):
            environment = json.loads((tmp_path / f"{kind}.json").read_text())
            assert environment["DATABASE_URL"] == login(stack.state, "migrator")
            assert (environment["SERVICE_ROLE"], environment["WORKER_ROLE"]) == (f"{kind}_service", {"task": "task_worker"}.get(kind, ""))
            assert not {"SERVICE_TOKEN", "KEY_ENCRYPTION_KEY", "PAGE_TOKEN_KEY", "REDIS_URL"} & set(environment)


async def test_the_database_is_unicode_and_wants_the_password(shared: Stack) -> None:
    url = shared.state.database_url
    assert await _query(url, "SELECT lower('ÄÖ') || pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'taskmanager'") == "äöUTF8"
    assert await _query(url, "SHOW fsync") == "on"
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(url, password="wrong")


@OWN_STACK
async def test_an_ephemeral_stack_leaves_no_directory(config: StackConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with Stack(replace(config, data_dir=None)) as stack:
        assert await _query(stack.state.database_url, "SHOW fsync") == "off"
        assert Path(stack.state.data_dir).is_relative_to(tmp_path)
    assert _files(tmp_path) == set()


@pytest.mark.parametrize("name", ["postgres", "valkey", "auth-1", "task-2", "task-worker-1", "gateway"])
async def test_a_process_can_be_killed_and_revived_on_its_port(shared: Stack, name: str) -> None:
    before = shared.state.processes[name]
    await shared.kill(name)
    assert shared.state.processes[name].pid is None
    others = {other: process.pid for other, process in shared.state.processes.items() if other != name}
    assert None not in others.values()
    await shared.start_process(name)
    after = shared.state.processes[name]
    assert after.pid not in {None, before.pid}
    assert replace(after, pid=None) == replace(before, pid=None)
    assert {other: process.pid for other, process in shared.state.processes.items() if other != name} == others
    state_file = Path(shared.state.data_dir).with_name("state.json")
    assert json.loads(state_file.read_text())["processes"][name]["pid"] == after.pid


async def test_a_process_can_be_frozen(shared: Stack) -> None:
    shared.send_signal("valkey", signal.SIGSTOP)
    shared.send_signal("valkey", signal.SIGCONT)
    async with redis.asyncio.from_url(shared.state.redis_url) as client:
        assert await client.ping()


async def test_a_death_that_nobody_asked_for_fails_the_block(config: StackConfig) -> None:
    async def lose_a_replica() -> None:
        async with Stack(config) as stack:
            os.kill(stack.state.processes["task-1"].pid or 0, signal.SIGKILL)
            with pytest.raises(ProcessDied):
                await stack.wait_for_death()

    with pytest.raises(ProcessDied, match="task-1 was ended by SIGKILL"):
        await lose_a_replica()


async def test_names_that_are_not_there_are_answered_with_those_that_are(shared: Stack) -> None:
    with pytest.raises(StackError, match=r"no process is named task-9: there are .*task-1"):
        await shared.kill("task-9")
    with pytest.raises(StackError, match="task-1 is already running"):
        await shared.start_process("task-1")


async def test_a_process_that_never_gets_ready_is_named(config: StackConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    start = Process.start

    async def start_patiently(process: Process) -> None:
        # On a busy machine the processes without a fault, such as PostgreSQL, may need more than 1 s.
        if process.spec.name != "auth-1":
            process.spec = replace(process.spec, start_timeout_seconds=60)
        await start(process)

    monkeypatch.setattr(Process, "start", start_patiently)
    with pytest.raises(StartTimeout, match=r"auth-1 did not become ready within 1 s"):
        await Stack(replace(config, environment={"STANDIN_FAULT": "auth=unready"}, start_timeout_seconds=1)).start()


@OWN_STACK
async def test_the_callers_settings_reach_the_services_and_its_addresses_do_not(config: StackConfig) -> None:
    inherited = {**os.environ, "LOG_LEVEL": "DEBUG", "GRPC_PORT": "1", "DATABASE_URL": "postgresql://elsewhere/", "PGOPTIONS": "-c fsync=off"}
    async with Stack(replace(config, inherited=inherited, environment={"BCRYPT_COST": "4"}, auth_replicas=2)) as stack:
        seen = _environment_of(stack, "task-1")
        databases = {name: _environment_of(stack, f"{name}-1")["DATABASE_URL"] for name in ("auth", "task", "task-worker")}
        state = stack.state
    assert (seen["LOG_LEVEL"], seen["BCRYPT_COST"], seen["ENVIRONMENT"], seen["BIND_HOST"]) == ("DEBUG", "4", "development", "127.0.0.1")
    assert databases == {"auth": login(state, "auth_service"), "task": login(state, "task_service"), "task-worker": login(state, "task_worker")}
    assert seen["REDIS_URL"] == state.redis_url
    assert seen["GRPC_PORT"] == str(state.processes["task-1"].grpc_port)
    assert seen["JWKS_URL"] == f"http://127.0.0.1:{state.processes['auth-1'].ops_port}/.well-known/jwks.json"
    ports = [state.processes[name].grpc_port for name in ("auth-1", "auth-2")]
    assert seen["AUTH_GRPC_ENDPOINT"] == f"ipv4:127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}"
    assert "PGOPTIONS" not in seen
    assert set(state.processes) == {"postgres", "valkey", "auth-1", "auth-2", "task-1", "task-worker-1", "gateway"}


async def test_without_descriptors_it_says_make_proto(config: StackConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="missing: run `make proto`"):
        await Stack(replace(config, descriptors=tmp_path / "none.binpb")).start()
    assert config.data_dir is not None
    assert not config.data_dir.exists()


async def test_a_cluster_of_another_version_is_left_alone(config: StackConfig) -> None:
    assert config.data_dir is not None
    (config.data_dir / "postgres").mkdir(parents=True)
    (config.data_dir / "postgres" / "PG_VERSION").write_text("9\n")
    with pytest.raises(UsageProblem, match=r"belongs to PostgreSQL 9, but PostgreSQL .* is installed"):
        await Stack(config).start()


@OWN_STACK
async def test_a_lost_password_is_explained(config: StackConfig) -> None:
    async with Stack(config) as stack:
        secrets = Path(stack.state.data_dir) / "secrets"
    (secrets / "postgres_password").unlink()
    with pytest.raises(UsageProblem, match=r"the password in .* does not match the database in"):
        await Stack(config).start()


async def test_wrong_settings_of_the_gateway_are_explained(config: StackConfig) -> None:
    commands = {name: command for name, command in config.commands.items() if name != "gateway"}
    with pytest.raises(UsageProblem, match=r"the gateway's settings \(environment variables\) are wrong:\nRATE_LIMIT_PER_SECOND: "):
        await Stack(replace(config, commands=commands, environment={"RATE_LIMIT_PER_SECOND": "some"})).start()


@OWN_STACK
async def test_logs_of_others_in_the_log_directory_are_left_alone(config: StackConfig, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "other.log").write_text("theirs")
    (logs / "gateway.log").write_text("the last run's")
    async with Stack(replace(config, log_dir=logs)) as stack:
        assert stack.log_dir == logs
    assert (logs / "other.log").read_text() == "theirs"
    assert (logs / "gateway.log.1").read_text() == "the last run's"
    assert "stand-in" in (logs / "gateway.log").read_text()


@OWN_STACK
async def test_a_stale_pid_file_is_no_obstacle(config: StackConfig) -> None:
    async with Stack(config) as stack:
        cluster = Path(stack.state.data_dir) / "postgres"
    # The pid of a running process of the same user, as can happen after a restart of the machine.
    (cluster / "postmaster.pid").write_text(f"{os.getpid()}\n{cluster}\n0\n15432\n\n127.0.0.1\n\n")
    async with Stack(config) as stack:
        assert await _query(stack.state.database_url, "SELECT 1") == 1


async def test_what_an_earlier_run_left_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devstack.data_dir._LEFTOVERS_TIMEOUT_SECONDS", 0.1)
    crashed = await DataDir.opened(tmp_path / "data", None)
    crashed.note_pid("valkey", os.getpid())
    leftover = os.dup(crashed.held)
    crashed.close()
    try:
        with pytest.raises(DataDirBusy, match=f"still running \\(valkey pid {os.getpid()}\\)"):
            await DataDir.opened(tmp_path / "data", None)
    finally:
        os.close(leftover)
    (await DataDir.opened(tmp_path / "data", None)).close()


async def test_abandoned_temporary_directories_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    abandoned, used = await DataDir.opened(None, None), await DataDir.opened(None, None)
    for directory in (abandoned, used):
        os.utime(directory.run / "lock", (0, 0))
    abandoned.ephemeral = False  # as if the stack had been killed: the kernel releases the locks, the directory remains
    abandoned.close()
    new = await DataDir.opened(None, None)
    assert _files(tmp_path) == {used.root, new.root}
    for directory in (used, new):
        directory.close()


async def test_ports_that_are_asked_for_are_used(config: StackConfig) -> None:
    gateway, task_ops = free_ports(2)
    ports = replace(Ports.free(), gateway=gateway, task_ops=task_ops)
    async with Stack(replace(config, ports=ports)) as stack:
        assert stack.state.url == f"http://localhost:{gateway}"
        assert stack.state.processes["task-1"].ops_port == task_ops
