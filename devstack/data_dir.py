"""The data directory of one stack: its layout, and the locks that let only one stack use it at a time.

    secrets/    mode 0700: keys, the passwords of the database's roles
    postgres/   the database cluster
    pgbouncer/  its configuration, if the stack has one
    run/        locks, pids, generated configuration
    logs/       NAME.log and, from the previous run, NAME.log.1

There are two locks. The kernel releases them however a process ends. The supervisor holds `run/lock`. Every process of the stack inherits and holds
`run/processes.lock`, so that a start after a crash of the supervisor can wait until the last of these processes has ended.
"""

import asyncio
import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from devstack.errors import DataDirBusy, UsageProblem
from devstack.keys import write_private

_PREFIX = "task-manager-"
_LEFTOVERS_TIMEOUT_SECONDS = 15.0
_POLL_SECONDS = 0.05
# Another stack may be about to lock a directory that is younger than this.
_ABANDONED_AFTER_SECONDS = 60.0


class DataDir:
    """An open data directory. It is locked for this stack until `close`."""

    def __init__(self, root: Path, log_dir: Path | None, *, ephemeral: bool) -> None:
        """Use `opened` instead."""
        self.root = root
        self.ephemeral = ephemeral
        self.secrets = root / "secrets"
        self.run = root / "run"
        self.logs = log_dir or root / "logs"
        self.postgres = root / "postgres"
        self._lock: int | None = None
        self._held: int | None = None

    @classmethod
    async def opened(cls, root: Path | None, log_dir: Path | None) -> "DataDir":
        """Creates the directory if it is missing, locks it, and waits until the processes of a crashed stack have ended. Raises DataDirBusy."""
        if root is None:
            _sweep()
        directory = cls(_ephemeral() if root is None else _persistent(root), log_dir, ephemeral=root is None)
        try:
            directory._make_folders()
            directory._take_lock()
            await directory._await_leftovers()
        except BaseException:
            directory.close()
            raise
        return directory

    @property
    def held(self) -> int:
        """The file descriptor that every process of the stack inherits."""
        assert self._held is not None
        return self._held

    def note_pid(self, name: str, pid: int | None) -> None:
        """Writes the pid of a process to a file, or removes the file for None. The error message of a later start shows these pids."""
        path = self.run / f"{name}.pid"
        if pid is None:
            path.unlink(missing_ok=True)
        else:
            write_private(path, f"{pid}\n")

    def close(self) -> None:
        """Releases the locks, and removes the directory if it is ephemeral."""
        if self.ephemeral:
            shutil.rmtree(self.root, ignore_errors=True)
        for descriptor in (self._held, self._lock):
            if descriptor is not None:
                os.close(descriptor)
        self._held = self._lock = None

    def _make_folders(self) -> None:
        for folder in (self.secrets, self.run, self.logs):
            folder.mkdir(mode=0o700, exist_ok=True, parents=folder == self.logs)

    def _take_lock(self) -> None:
        descriptor = os.open(self.run / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        if not _try_lock(descriptor):
            holder = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
            os.close(descriptor)
            raise DataDirBusy(f"{self.root} is in use by another stack (pid {holder}): stop that one, or choose another directory with --data-dir")
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock = descriptor

    async def _await_leftovers(self) -> None:
        descriptor = os.open(self.run / "processes.lock", os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + _LEFTOVERS_TIMEOUT_SECONDS
        while not _try_lock(descriptor):
            if time.monotonic() >= deadline:
                os.close(descriptor)
                raise DataDirBusy(f"processes of an earlier run on {self.root} are still running ({self._leftovers()}): stop them first")
            await asyncio.sleep(_POLL_SECONDS)
        self._held = descriptor
        for note in self.run.glob("*.pid"):
            note.unlink()

    def _leftovers(self) -> str:
        notes = ((note.stem, note.read_text().strip()) for note in sorted(self.run.glob("*.pid")))
        return ", ".join(f"{name} pid {pid}" for name, pid in notes if _lives(int(pid))) or "pids unknown"


def _persistent(root: Path) -> Path:
    root = root.absolute()
    if not root.exists():
        # If root creates the directory, PostgreSQL's user must be able to enter it. All private files in it are in folders of mode 0700.
        root.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True)
    owner = root.stat().st_uid
    if os.geteuid() not in {0, owner}:
        raise UsageProblem(f"{root} belongs to user {owner}, not to you: choose another directory with --data-dir")
    return root


def _ephemeral() -> Path:
    root = Path(tempfile.mkdtemp(prefix=_PREFIX))
    if os.geteuid() == 0:
        root.chmod(0o711)
    return root


def _sweep() -> None:
    """Removes the ephemeral directories of stacks that were killed before they removed them."""
    for root in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            found = (root / "run" / "lock").stat()
            if found.st_uid == os.geteuid() and time.time() - found.st_mtime > _ABANDONED_AFTER_SECONDS and _unused(root):
                shutil.rmtree(root, ignore_errors=True)


def _unused(root: Path) -> bool:
    for name in ("lock", "processes.lock"):
        with (root / "run" / name).open("r+") as file:
            if not _try_lock(file.fileno()):
                return False
    return True


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
