"""PostgreSQL refuses to run as root. If the caller is root, this module chooses another user and the capabilities that this user needs.

The owner of an existing database runs it. For a new database, the first start creates the system user `taskmanager-postgres` with `useradd` (or
Alpine's `adduser`). If neither command works, PostgreSQL runs as `nobody`, which has the passwd entry that initdb requires.

The module never changes the mode of an existing directory. If the binaries or the data directory are below a directory that the user cannot enter,
such as root's home, PostgreSQL keeps one capability: CAP_DAC_READ_SEARCH. If that capability is not available (container engines usually drop it), or
only root may execute a binary, PostgreSQL keeps CAP_DAC_OVERRIDE. PostgreSQL can then read files that its user could not. This adds no risk on a
machine where the caller is root already.
"""

import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from devstack.errors import UsageProblem

USER = "taskmanager-postgres"
_FALLBACK_USER = "nobody"

# linux/capability.h
_CAP_DAC_OVERRIDE = 1
_CAP_DAC_READ_SEARCH = 2


@dataclass(frozen=True, slots=True)
class Account:
    """The user that a process runs as, and the capabilities (numbers) that it keeps."""

    uid: int
    gid: int
    capabilities: tuple[int, ...] = ()


def postgres_account(cluster: Path, programs: Iterable[Path]) -> Account | None:
    """Returns the account for PostgreSQL, or None if the caller is not root and can run it. Raises UsageProblem."""
    if os.geteuid() != 0:
        return None
    uid, gid = _owner(cluster) or _system_user()
    return Account(uid, gid, _capabilities(uid, gid, cluster.parent, list(programs)))


def _owner(cluster: Path) -> tuple[int, int] | None:
    try:
        found = cluster.stat()
    except FileNotFoundError:
        return None
    return (found.st_uid, found.st_gid) if found.st_uid != 0 else None


def _system_user() -> tuple[int, int]:
    if (known := _lookup(USER)) is not None:
        return known
    for command in (
        ("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", USER),
        ("adduser", "-S", "-D", "-H", "-h", "/nonexistent", "-s", "/sbin/nologin", USER),
    ):
        if (program := shutil.which(command[0])) is not None:
            # A failure is no error yet: another start may have created the user meanwhile, and `nobody` remains as a fallback.
            subprocess.run((program, *command[1:]), capture_output=True, check=False, timeout=30)
            if (made := _lookup(USER)) is not None:
                return made
    if (nobody := _lookup(_FALLBACK_USER)) is not None:
        return nobody
    raise UsageProblem(
        f"PostgreSQL refuses to run as root. This machine cannot add the user {USER} and has no user {_FALLBACK_USER}: run as another user"
    )


def _lookup(name: str) -> tuple[int, int] | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return entry.pw_uid, entry.pw_gid


def _capabilities(uid: int, gid: int, data_dir: Path, programs: list[Path]) -> tuple[int, ...]:
    passable = all(_allows(folder, uid, gid, stat.S_IXOTH) for path in (data_dir, *(p.parent for p in programs)) for folder in _upwards(path))
    executable = all(_allows(program, uid, gid, stat.S_IROTH | stat.S_IXOTH) for program in programs)
    if passable and executable:
        return ()
    held = _permitted()
    if executable and _CAP_DAC_READ_SEARCH in held:
        return (_CAP_DAC_READ_SEARCH,)
    if _CAP_DAC_OVERRIDE in held:
        return (_CAP_DAC_OVERRIDE,)
    raise UsageProblem(
        f"PostgreSQL refuses to run as root. User {uid}, as which it would run, cannot reach {data_dir} or {programs[0]}: "
        "move both below directories that other users may enter, or run as another user"
    )


def _upwards(path: Path) -> Iterable[Path]:
    # Both the path as written and the resolved path, because a symbolic link leads through the directories of both.
    written, real = path.absolute(), path.resolve()
    return {written, *written.parents, real, *real.parents}


def _allows(path: Path, uid: int, gid: int, needed: int) -> bool:
    """Returns whether the mode grants the user all bits of `needed`, which uses the bits for others (S_IXOTH)."""
    found = path.stat()
    shift = 6 if found.st_uid == uid else 3 if found.st_gid == gid else 0
    return (found.st_mode >> shift) & needed == needed


def _permitted() -> frozenset[int]:
    """Returns the capabilities that this process may pass on. On systems other than Linux the set is empty."""
    if sys.platform != "linux":
        return frozenset()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapPrm:"):
            bits = int(line.split()[1], 16)
            return frozenset(number for number in range(64) if bits >> number & 1)
    return frozenset()
