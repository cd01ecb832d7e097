"""The CPU time of processes, from /proc. On systems other than Linux it is always 0."""

import os
from collections.abc import Mapping
from pathlib import Path

_PROC = Path("/proc")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """Returns the pids of the process and its children. PostgreSQL has one child for each connection."""
    parents = {int(entry.name): _fields(int(entry.name)) for entry in _PROC.glob("[0-9]*")}
    return [pid, *(child for child, fields in parents.items() if fields and int(fields[1]) == pid)]


def seconds(families: Mapping[str, list[int]]) -> dict[str, float]:
    """Returns the user and system time of each family so far, in seconds, for all threads. A process that has ended counts as 0."""
    return {name: sum(_seconds(pid) for pid in pids) for name, pids in families.items()}


def _seconds(pid: int) -> float:
    fields = _fields(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND if fields else 0.0


def _fields(pid: int) -> list[str]:
    """Returns the fields of proc_pid_stat(5) after the command's name, which may contain any character: state, ppid … utime, stime."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
