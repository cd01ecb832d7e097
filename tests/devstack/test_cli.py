"""The command line options, and the allocation of ports."""

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from devstack import cli, ports
from devstack.config import Ports, StackConfig
from devstack.errors import PortsTaken


def _read(*arguments: str) -> StackConfig:
    return cli._config(cli._parser().parse_args(["up", *arguments]))


def test_defaults_are_the_contracts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GATEWAY_PORT", raising=False)
    config = _read()
    assert config.data_dir == Path(".data")
    assert config.ports == Ports(8080, 9094, 9901, 15432, 16379, 50051, 9091, 50052, 9092, 50053, 9093)


def test_every_port_has_a_switch() -> None:
    switches = [argument for name in Ports.__slots__ for argument in (ports.switch(name), "0")]
    assert _read(*switches).ports == Ports.free()


def test_the_variable_is_the_gateway_ports_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "8181")
    assert _read().ports.gateway == 8181
    assert _read("--gateway-port", "8282").ports.gateway == 8282


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--gateway-port", "http"), "'http' is not a number from 0 to 65535"),
        (("--postgres-port", "65536"), "'65536' is not a number from 0 to 65535"),
        (("--task-replicas", "0"), "'0' is not a number from 1 to 100"),
        (("--task-workers", "0"), "'0' is not a number from 1 to 100"),
        (("--tls-port", "8443"), "--tls-port, --tls-cert and --tls-key must be given together"),
        (("--ephemeral", "--data-dir", "x"), "not allowed with"),
    ],
)
def test_wrong_switches_are_explained(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _read(*arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_wrong_variable_is_explained(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GATEWAY_PORT", "http")
    with pytest.raises(SystemExit):
        _read()
    assert "'http' is not a number" in capsys.readouterr().err


def test_free_ports_are_distinct_and_free() -> None:
    allocation = ports.allocate(StackConfig(task_replicas=5, auth_replicas=3, task_workers=2))
    replicas = [*allocation.auth, *allocation.task, *allocation.task_worker]
    found = [getattr(allocation, name) for name in ("gateway", "gateway_ops", "admin", "postgres", "valkey")]
    found += [port for replica in replicas for port in (replica.grpc, replica.ops)]
    assert len(set(found)) == len(found) == 5 + 2 * 10
    names = {"auth": 3, "task": 5, "task-worker": 2}
    assert [replica.name for replica in replicas] == [f"{kind}-{number}" for kind, count in names.items() for number in range(1, count + 1)]


def test_a_port_stays_reserved_as_long_as_its_stack_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    # As many ports as a stack has, which no other run of this test uses at the same time, outside of those that stacks pick from.
    count = len(Ports.__slots__)
    first_port = 10_000 + os.getpid() % 900 * count
    few = range(first_port, first_port + count)
    monkeypatch.setattr(ports, "_FREE_RANGE", few)
    first = ports.allocate(StackConfig())
    with pytest.raises(PortsTaken, match=f"no free port between {few.start} and {few.stop}"):
        ports.allocate(StackConfig())
    del first
    assert ports.allocate(StackConfig()).gateway in few


def test_another_process_does_not_pick_a_reserved_port() -> None:
    reservations = ports.reserve(3)
    program = f"from devstack.ports import Reservation\nfor port in {[each.port for each in reservations]}:\n    Reservation(port)"
    refused = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, check=False)
    assert "Address already in use" in refused.stderr
    del reservations
    subprocess.run((sys.executable, "-c", program), check=True)


def test_a_port_wanted_twice_is_said() -> None:
    config = StackConfig(ports=dataclasses.replace(Ports.free(), postgres=21_001, valkey=21_001))
    with pytest.raises(PortsTaken, match="port 21001 is wanted twice, by Postgres and Valkey: change --valkey-port"):
        ports.allocate(config)


def test_a_listener_that_shares_its_port_is_seen() -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        config = StackConfig(ports=dataclasses.replace(Ports.free(), auth_grpc=listener.getsockname()[1]))
        with pytest.raises(PortsTaken, match=r"wanted by auth_service \(gRPC\), is taken"):
            ports.allocate(config)
