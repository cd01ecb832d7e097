"""What a running stack tells to tests, benchmarks and people: addresses and pids, also as a JSON file."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from devstack.keys import write_private


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process: its pid (None while it is down), its log and its ports."""

    pid: int | None
    log: str
    port: int | None = None
    grpc_port: int | None = None
    ops_port: int | None = None
    admin_port: int | None = None
    tls_port: int | None = None


@dataclass(frozen=True, slots=True)
class State:
    """The stack at one moment. The database URL is the superuser's, with the password."""

    url: str
    data_dir: str
    database_url: str
    redis_url: str
    processes: Mapping[str, ProcessState]
    tls_url: str | None = None

    def to_json(self) -> str:
        """As an object without the fields that have no value."""
        return json.dumps({"supervisor_pid": os.getpid(), **_without_none(asdict(self))}, indent=2) + "\n"

    def write(self, path: Path) -> None:
        """Writes the file at once and readable by its owner alone."""
        write_private(path, self.to_json())


def _without_none(value: dict[str, object]) -> dict[str, object]:
    return {name: _without_none(inner) if isinstance(inner, dict) else inner for name, inner in value.items() if inner is not None}
