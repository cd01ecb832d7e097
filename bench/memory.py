"""The resident memory of processes, from /proc. On systems other than Linux it cannot be measured."""

import os
from collections.abc import Mapping
from pathlib import Path


def resident(processes: Mapping[str, int]) -> dict[str, int]:
    """Returns the resident set size of each process in bytes, without its children."""
    return {name: _resident(pid) for name, pid in processes.items()}


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
