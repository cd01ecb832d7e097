"""Postgres refuses to run as root: this finds the user that it runs as instead, and what that user needs to reach its files.

As root, an existing database is run by the user who owns it. A new one gets the system user `taskmanager-postgres`, made at the first
start with `useradd` (or Alpine's `adduser`); where neither works, `nobody`, which has the passwd entry that initdb asks for.

No mode of an existing directory is ever changed. If the binaries or the data directory lie below a directory which that user cannot
pass, such as root's home, Postgres keeps one capability: CAP_DAC_READ_SEARCH, or where it is not to be had (it is not among a container
engine's usual ones) or a binary is executable by root alone, CAP_DAC_OVERRIDE. Postgres then reads files that its user could not, which
on a machine where one already starts it as root gives nothing away.
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
    """The user that a process runs as, with the capabilities (numbers) that it keeps."""

    uid: int
    gid: int
    capabilities: tuple[int, ...] = ()


def postgres_account(cluster: Path, programs: Iterable[Path]) -> Account | None:
    """The account for Postgres; None when the caller's own will do, since it is not root."""
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
            # Its failure is not ours yet: another start may have made the user meanwhile, and `nobody` is left.
            subprocess.run((program, *command[1:]), capture_output=True, check=False, timeout=30)
            if (made := _lookup(USER)) is not None:
                return made
    if (nobody := _lookup(_FALLBACK_USER)) is not None:
        return nobody
    raise UsageProblem(
        f"Postgres does not run as root, and there is neither a way to add the user {USER} nor a user {_FALLBACK_USER}: run as another user"
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
        f"Postgres does not run as root, and user {uid}, which it would run as, cannot reach {data_dir} or {programs[0]}: "
        "put both below directories that others may pass, or run as another user"
    )


def _upwards(path: Path) -> Iterable[Path]:
    # As it is written and as it is: links are passed on the way.
    written, real = path.absolute(), path.resolve()
    return {written, *written.parents, real, *real.parents}


def _allows(path: Path, uid: int, gid: int, needed: int) -> bool:
    """Whether the mode gives the user all bits of `needed`, which is written as for others."""
    found = path.stat()
    shift = 6 if found.st_uid == uid else 3 if found.st_gid == gid else 0
    return (found.st_mode >> shift) & needed == needed


def _permitted() -> frozenset[int]:
    """The capabilities that this process may hand on; empty elsewhere than on Linux."""
    if sys.platform != "linux":
        return frozenset()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapPrm:"):
            bits = int(line.split()[1], 16)
            return frozenset(number for number in range(64) if bits >> number & 1)
    return frozenset()
