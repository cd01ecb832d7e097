"""Allocates a port for each listener. It checks whether a port is free by binding it briefly, and starts nothing."""

import errno
import random
import socket
import sys
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from devstack.config import HOST, Ports, StackConfig
from devstack.errors import PortsTaken

# The kernel uses none of these ports for outgoing connections (it uses 32768 and up on Linux, 49152 and up on other systems), so a free port stays
# free until its process binds it.
_FREE_RANGE = range(20_000, 32_000)


class Reservation:
    """A port that no other stack on this machine picks while this object lives, not even while the port's process is down.

    The mark is an abstract Unix socket: the kernel gives its name to one process at a time and removes it when that process ends. Only Linux has
    such names; on other systems nothing is reserved.
    """

    def __init__(self, port: int) -> None:
        """Raises OSError if another stack has reserved the port."""
        self.port = port
        if sys.platform == "linux":
            mark = socket.socket(socket.AF_UNIX)
            weakref.finalize(self, mark.close)
            mark.bind(f"\0task-manager-port-{port}")


@dataclass(frozen=True, slots=True)
class Replica:
    """The ports of one replica of a service."""

    name: str
    grpc: int
    ops: int


@dataclass(frozen=True, slots=True)
class Allocation:
    """Every port of a stack. None of them is 0. Those that were picked stay reserved while this object lives."""

    gateway: int
    gateway_ops: int
    admin: int
    tls: int | None
    postgres: int
    valkey: int
    pgbouncer: int | None
    auth: tuple[Replica, ...]
    task: tuple[Replica, ...]
    task_worker: tuple[Replica, ...]
    reservations: Sequence[Reservation]


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
    reservations: list[Reservation] = []

    def number(asked: int) -> int:
        return asked or picked()

    def picked() -> int:
        reservations.append(_reserve(avoid))
        return reservations[-1].port

    def replicas(kind: str, count: int, grpc: int, ops: int) -> tuple[Replica, ...]:
        first = Replica(f"{kind}-1", number(grpc), number(ops))
        return (first, *(Replica(f"{kind}-{index}", picked(), picked()) for index in range(2, count + 1)))

    return Allocation(
        gateway=number(ports.gateway),
        gateway_ops=number(ports.gateway_ops),
        admin=number(ports.admin),
        tls=None if config.tls is None else number(config.tls.port),
        postgres=number(ports.postgres),
        valkey=number(ports.valkey),
        pgbouncer=picked() if config.pgbouncer else None,
        auth=replicas("auth", config.auth_replicas, ports.auth_grpc, ports.auth_ops),
        task=replicas("task", config.task_replicas, ports.task_grpc, ports.task_ops),
        task_worker=replicas("task-worker", config.task_workers, ports.task_worker_grpc, ports.task_worker_ops),
        reservations=reservations,
    )


def reserve(count: int) -> Sequence[Reservation]:
    """Reserves free ports for processes of no stack. Raises PortsTaken."""
    avoid: set[int] = set()
    return [_reserve(avoid) for _ in range(count)]


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
    "task_worker_grpc": "the worker (gRPC)",
    "task_worker_ops": "the worker (ops)",
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
        # With SO_REUSEADDR, as servers do, so that a connection in TIME_WAIT from the last run does not count. Without SO_REUSEPORT, so that the
        # probe also detects a listener that uses SO_REUSEPORT.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
    return None


def _reserve(avoid: set[int]) -> Reservation:
    for port in random.sample(_FREE_RANGE, len(_FREE_RANGE)):
        if port in avoid:
            continue
        try:
            reservation = Reservation(port)
        except OSError:
            continue
        # Checked after the reservation, so that no other stack can pick the port in between.
        if _refusal(port) is None:
            avoid.add(port)
            return reservation
    raise PortsTaken(f"no free port between {_FREE_RANGE.start} and {_FREE_RANGE.stop}")
