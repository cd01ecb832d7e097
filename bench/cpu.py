"""The CPU time of processes, from /proc. On systems other than Linux it is always 0."""

import os
from collections.abc import Mapping
from pathlib import Path

_PROC = Path("/proc")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# The positions of ppid, utime, stime, cutime and cstime in what `_fields` returns.
_PPID, _OWN, _REAPED = 1, slice(11, 13), slice(13, 15)


def seconds(processes: Mapping[str, int]) -> dict[str, float]:
    """Returns the user and system time of each process so far, in seconds, with all its threads and children. A process that has ended counts as 0.

    PostgreSQL has one child for each connection and starts others now and then. The time of a child that has ended is part of its parent's.
    """
    found = {int(entry.name): fields for entry in _PROC.glob("[0-9]*") if (fields := _fields(int(entry.name)))}
    children = dict.fromkeys(processes.values(), 0)
    for fields in found.values():
        if (parent := int(fields[_PPID])) in children:
            children[parent] += _ticks(fields[_OWN])
    return {name: _seconds(found.get(pid), children[pid]) for name, pid in processes.items()}


def _seconds(fields: list[str] | None, of_children: int) -> float:
    own = _ticks(fields[_OWN]) + _ticks(fields[_REAPED]) if fields else 0
    return (own + of_children) / _TICKS_PER_SECOND


def _ticks(fields: list[str]) -> int:
    return sum(int(field) for field in fields)


def _fields(pid: int) -> list[str]:
    """Returns the fields of proc_pid_stat(5) after the command's name, which may contain any character: state, ppid … cutime, cstime."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
