"""What a stack is asked to be: ports, replicas, directories, commands. Values only, nothing is looked up or opened here."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# The package's parent: proto/, gen/ and the services lie beside devstack/.
PROJECT_ROOT = Path(__file__).resolve().parent.parent

DEFAULT_DATA_DIR = Path(".data")

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Ports:
    """The port of each listener; 0 = a free one. Those of a service are its first replica's, further replicas take free ones."""

    gateway: int = 8080
    gateway_ops: int = 9094
    admin: int = 9901
    postgres: int = 15432
    valkey: int = 16379
    auth_grpc: int = 50051
    auth_ops: int = 9091
    task_grpc: int = 50052
    task_ops: int = 9092

    @classmethod
    def free(cls) -> "Ports":
        """Free ports everywhere, for a stack beside others."""
        return cls(0, 0, 0, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Tls:
    """The gateway's TLS listener, beside the cleartext one."""

    port: int
    certificate: Path
    key: Path


def _service_commands() -> Mapping[str, tuple[str, ...]]:
    return {"auth_service": (sys.executable, "-m", "auth_service"), "task_service": (sys.executable, "-m", "task_service")}


@dataclass(frozen=True, slots=True)
class StackConfig:
    """One stack.

    `data_dir` None means ephemeral: a temporary directory that goes when the stack stops, and a Postgres without fsync.
    `commands` maps `auth_service` and `task_service` to the command that takes `run` or `migrate` as its last argument; an entry
    `gateway` replaces Envoy by a command that reads the gateway's settings from its environment. `environment` wins over the caller's
    environment, and both lose against what the stack sets itself (addresses, keys).
    """

    data_dir: Path | None = None
    ports: Ports = field(default_factory=Ports.free)
    tls: Tls | None = None
    auth_replicas: int = 1
    task_replicas: int = 1
    state_file: Path | None = None
    log_dir: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    inherited: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    commands: Mapping[str, tuple[str, ...]] = field(default_factory=_service_commands)
    descriptors: Path = PROJECT_ROOT / "gen" / "descriptors.binpb"
    # Envoy's worker threads. One keeps rate limits and load balancing simple to reason about and leaves a 2-core machine to the services,
    # which need more CPU per call than Envoy does.
    gateway_concurrency: int = 1
    drain_delay_seconds: float = 0.1
    start_timeout_seconds: float = 60.0
