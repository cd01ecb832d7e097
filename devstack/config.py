"""The configuration of a stack: ports, replicas, directories, commands. Values only: this module opens no file and no port."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# The parent directory of devstack/, which also contains proto/, gen/ and the services.
PROJECT_ROOT = Path(__file__).resolve().parent.parent

DEFAULT_DATA_DIR = Path(".data")

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Ports:
    """The port of each listener; 0 means a free port. A service's ports are those of its first replica; every other replica uses free ports."""

    gateway: int = 8080
    gateway_ops: int = 9094
    admin: int = 9901
    postgres: int = 15432
    valkey: int = 16379
    auth_grpc: int = 50051
    auth_ops: int = 9091
    task_grpc: int = 50052
    task_ops: int = 9092
    task_worker_grpc: int = 50053
    task_worker_ops: int = 9093

    @classmethod
    def free(cls) -> "Ports":
        """Returns free ports for every listener, so that several stacks can run at once."""
        return cls(*[0] * len(cls.__slots__))


@dataclass(frozen=True, slots=True)
class Tls:
    """The gateway's TLS listener, in addition to the cleartext listener."""

    port: int
    certificate: Path
    key: Path


def _service_commands() -> Mapping[str, tuple[str, ...]]:
    return {"auth_service": (sys.executable, "-m", "auth_service"), "task_service": (sys.executable, "-m", "task_service")}


@dataclass(frozen=True, slots=True)
class StackConfig:
    """The configuration of one stack.

    `data_dir` None means ephemeral: the stack uses a temporary directory, which it removes when it stops, and PostgreSQL runs without fsync.
    `commands` maps `auth_service` and `task_service` to the command that takes `run`, `work` or `migrate` as its last argument. An entry
    `gateway` replaces Envoy with a command that reads the gateway's settings from its environment. `environment` overrides the caller's
    environment (`inherited`). The stack's own variables (addresses, keys) override both.
    With `pgbouncer`, services and migrations connect to a PgBouncer, which listens on a free port.
    """

    data_dir: Path | None = None
    ports: Ports = field(default_factory=Ports.free)
    tls: Tls | None = None
    auth_replicas: int = 1
    task_replicas: int = 1
    task_workers: int = 1
    pgbouncer: bool = False
    state_file: Path | None = None
    log_dir: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    inherited: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    commands: Mapping[str, tuple[str, ...]] = field(default_factory=_service_commands)
    descriptors: Path = PROJECT_ROOT / "gen" / "descriptors.binpb"
    # The number of Envoy's worker threads. With one thread, rate limits and load balancing are exact, and on a 2-core machine more CPU time is left
    # for the services, which need more of it per call than Envoy.
    gateway_concurrency: int = 1
    drain_delay_seconds: float = 0.1
    start_timeout_seconds: float = 60.0
