"""The directory of one stack: where things lie in it, and that only one stack uses it at a time.

    secrets/    mode 0700: keys, the passwords of the database's roles
    postgres/   the database cluster
    run/        locks, pids, generated configuration
    logs/       NAME.log and, from the run before, NAME.log.1

Two locks, both released by the kernel however a process ends. `run/lock` is the supervisor's. `run/processes.lock` is held by the
processes, each of which inherits it, so a start after a crash of the supervisor can wait until the last of them is gone.
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

_PREFIX = "task-manager-"
_LEFTOVERS_TIMEOUT_SECONDS = 15.0
_POLL_SECONDS = 0.05
# A directory younger than this may be one that another stack is about to lock.
_ABANDONED_AFTER_SECONDS = 60.0


class DataDir:
    """An opened data directory: locked for this stack until closed."""

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
        """Makes the directory if it is missing, locks it, and waits for what a crashed stack left. Raises DataDirBusy."""
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
        """Remembers a process for the message of a later start."""
        path = self.run / f"{name}.pid"
        if pid is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(f"{pid}\n")

    def close(self) -> None:
        """Gives the locks back, and removes the directory if it is ephemeral."""
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
                raise DataDirBusy(f"processes of an earlier run on {self.root} are still there ({self._leftovers()}): stop them first")
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
        # When root makes it, Postgres' user has to pass it; everything private in it is in folders of mode 0700.
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
    """Removes the ephemeral directories of stacks that were killed before they could."""
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
