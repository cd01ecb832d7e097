"""The CPU time of processes, from /proc. Elsewhere than on Linux it is not known and counts as none."""

import os
from collections.abc import Mapping
from pathlib import Path

_PROC = Path("/proc")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """The process and its children: Postgres has one for each connection."""
    parents = {int(entry.name): _fields(int(entry.name)) for entry in _PROC.glob("[0-9]*")}
    return [pid, *(child for child, fields in parents.items() if fields and int(fields[1]) == pid)]


def seconds(families: Mapping[str, list[int]]) -> dict[str, float]:
    """User and system time so far of each family, all threads together. A process that has ended counts as none."""
    return {name: sum(_seconds(pid) for pid in pids) for name, pids in families.items()}


def _seconds(pid: int) -> float:
    fields = _fields(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND if fields else 0.0


def _fields(pid: int) -> list[str]:
    """What follows the command's name, which may hold anything, in proc_pid_stat(5): state, ppid … utime, stime."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
