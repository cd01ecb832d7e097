"""The addresses and pids of a running stack, for tests, benchmarks and people, also as a JSON file."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from devstack.keys import write_private


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process: its pid (None if it does not run), its log and its ports."""

    pid: int | None
    log: str
    port: int | None = None
    grpc_port: int | None = None
    ops_port: int | None = None
    admin_port: int | None = None
    tls_port: int | None = None


@dataclass(frozen=True, slots=True)
class State:
    """A snapshot of the stack. The database URL contains the superuser and its password."""

    url: str
    data_dir: str
    database_url: str
    redis_url: str
    processes: Mapping[str, ProcessState]
    tls_url: str | None = None

    def to_json(self) -> str:
        """Returns a JSON object without the fields that are None."""
        return json.dumps({"supervisor_pid": os.getpid(), **_without_none(asdict(self))}, indent=2) + "\n"

    def write(self, path: Path) -> None:
        """Writes the file atomically. Only its owner can read it."""
        write_private(path, self.to_json())


def kind_of(process: str) -> str:
    """Returns the kind of a process: its name without the number of the replica, such as `task-worker` for `task-worker-2`."""
    name, _, number = process.rpartition("-")
    return name if number.isdecimal() else process


def _without_none(value: dict[str, object]) -> dict[str, object]:
    return {name: _without_none(inner) if isinstance(inner, dict) else inner for name, inner in value.items() if inner is not None}
