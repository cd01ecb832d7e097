"""Allocates a port for each listener. It checks whether a port is free by binding it briefly, and starts nothing."""

import errno
import random
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from devstack.config import HOST, Ports, StackConfig
from devstack.errors import PortsTaken

# The kernel uses none of these ports for outgoing connections (it uses 32768 and up on Linux, 49152 and up on other systems), so a free port stays
# free until its process binds it.
_FREE_RANGE = range(20_000, 32_000)


@dataclass(frozen=True, slots=True)
class Replica:
    """The ports of one replica of a service."""

    name: str
    grpc: int
    ops: int


@dataclass(frozen=True, slots=True)
class Allocation:
    """Every port of a stack. None of them is 0."""

    gateway: int
    gateway_ops: int
    admin: int
    tls: int | None
    postgres: int
    valkey: int
    auth: tuple[Replica, ...]
    task: tuple[Replica, ...]


@dataclass(frozen=True, slots=True)
class _Claim:
    port: int
    wanted_by: str
    change_with: str


def allocate(config: StackConfig) -> Allocation:
    """Checks the ports that the configuration names and picks free ones for the others. Raises PortsTaken, which lists every port in use."""
    ports = config.ports
    claims = list(_claims(config))
    _check(claims)
    avoid = {claim.port for claim in claims}

    def number(asked: int) -> int:
        return asked or _pick(avoid)

    return Allocation(
        gateway=number(ports.gateway),
        gateway_ops=number(ports.gateway_ops),
        admin=number(ports.admin),
        tls=None if config.tls is None else number(config.tls.port),
        postgres=number(ports.postgres),
        valkey=number(ports.valkey),
        auth=_replicas("auth", config.auth_replicas, ports.auth_grpc, ports.auth_ops, avoid),
        task=_replicas("task", config.task_replicas, ports.task_grpc, ports.task_ops, avoid),
    )


def _replicas(kind: str, count: int, grpc: int, ops: int, avoid: set[int]) -> tuple[Replica, ...]:
    first = Replica(f"{kind}-1", grpc or _pick(avoid), ops or _pick(avoid))
    return (first, *(Replica(f"{kind}-{number}", _pick(avoid), _pick(avoid)) for number in range(2, count + 1)))


def _claims(config: StackConfig) -> Iterable[_Claim]:
    ports = config.ports
    gateway_switch = "--gateway-port or the variable GATEWAY_PORT"
    wanted = [_Claim(ports.gateway, "the gateway (HTTP)", gateway_switch)]
    wanted += [_Claim(getattr(ports, name), purpose, switch(name)) for name, purpose in PURPOSES.items() if name != "gateway"]
    if config.tls is not None:
        wanted.append(_Claim(config.tls.port, "the gateway (TLS)", "--tls-port"))
    return (claim for claim in wanted if claim.port)


PURPOSES = {
    "gateway": "the gateway (HTTP)",
    "gateway_ops": "the gateway (ops)",
    "admin": "Envoy's admin page",
    "postgres": "Postgres",
    "valkey": "Valkey",
    "auth_grpc": "auth_service (gRPC)",
    "auth_ops": "auth_service (ops)",
    "task_grpc": "task_service (gRPC)",
    "task_ops": "task_service (ops)",
}
assert tuple(PURPOSES) == Ports.__slots__


def switch(name: str) -> str:
    """Returns the command line option for a field of Ports."""
    return f"--{name.replace('_', '-')}-port"


def _check(claims: list[_Claim]) -> None:
    problems = []
    owners: dict[int, _Claim] = {}
    for claim in claims:
        if (other := owners.setdefault(claim.port, claim)) is not claim:
            problems.append(f"port {claim.port} is wanted twice, by {other.wanted_by} and {claim.wanted_by}: change {claim.change_with}")
        elif (reason := _refusal(claim.port)) is not None:
            problems.append(f"port {claim.port}, wanted by {claim.wanted_by}, {reason}: choose another with {claim.change_with} (0 picks a free one)")
    if problems:
        raise PortsTaken("\n".join(problems))


def _refusal(port: int) -> str | None:
    """Returns why a process cannot listen on the port, or None if it can."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do, so that a connection in TIME_WAIT from the last run does not count. Without SO_REUSEPORT, so that the probe also detects a
        # listener that uses it.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
    return None


def _pick(avoid: set[int]) -> int:
    for port in random.sample(_FREE_RANGE, len(_FREE_RANGE)):
        if port not in avoid and _refusal(port) is None:
            avoid.add(port)
            return port
    raise PortsTaken(f"no free port between {_FREE_RANGE.start} and {_FREE_RANGE.stop}")
