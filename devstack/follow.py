"""Follows the logs of a running stack: prints each new line of every process with its name, and JSON lines in a form for people."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

from rich.console import Console
from rich.text import Text

from devstack.errors import UsageProblem

_POLL_SECONDS: Final = 0.2
# What is shown of each log that is there already.
_TAIL_BYTES: Final = 4096
# A line of JSON has these names for its time, level and event; Envoy's access log has no level.
_TIMES: Final = ("timestamp", "time", "start_time")
_STYLES: Final = {"warning": "yellow", "error": "red", "critical": "red"}
_NAME_WIDTH: Final = 10


def follow(folder: Path, console: Console, ended: Callable[[], bool] = lambda: False) -> None:
    """Prints the ends of the logs in the folder, and then every new line until `ended`. Raises UsageProblem if there are no logs."""
    logs: dict[Path, _Log] = {}
    while True:
        for path in sorted(folder.glob("*.log")):
            log = logs.setdefault(path, _Log(path))
            for line in log.new_lines():
                console.print(_shown(path.stem, line), soft_wrap=True)
        if not logs:
            raise UsageProblem(f"{folder} has no logs: start the system first (make run), or name its data directory (--data-dir)")
        if ended():
            return
        time.sleep(_POLL_SECONDS)


class _Log:
    """One log file. If it is replaced by a new one, the new one is read from its beginning."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode: int | None = None
        self._read = 0
        self._rest = b""

    def new_lines(self) -> Iterator[str]:
        """Yields the complete lines since the last call."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            self._find_place(file)
            new = file.read()
            self._read += len(new)
            *lines, self._rest = (self._rest + new).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace")

    def _find_place(self, file: BinaryIO) -> None:
        found = os.fstat(file.fileno())
        if found.st_ino == self._inode:
            file.seek(self._read)
            return
        if self._inode is None and found.st_size > _TAIL_BYTES:
            file.seek(found.st_size - _TAIL_BYTES)
            file.readline()
        self._inode, self._read, self._rest = found.st_ino, file.tell(), b""


def _shown(name: str, line: str) -> Text:
    """Returns the line for people: time, process, event, and the other values."""
    fields = _fields(line)
    if fields is None:
        return Text.assemble((f"{name:<{_NAME_WIDTH}} ", "cyan"), line)
    at = next((str(fields.pop(key)) for key in _TIMES if key in fields), "")
    level, event = str(fields.pop("level", "")), str(fields.pop("event", ""))
    fields.pop("service", None)
    values = " ".join(f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in fields.items() if value is not None)
    return Text.assemble(
        (f"{at[11:23]:<12} ", "dim"), (f"{name:<{_NAME_WIDTH}} ", "cyan"), (f"{level or '-':<8}", _STYLES.get(level, "")), f"{event} {values}".strip()
    )


def _fields(line: str) -> dict[str, Any] | None:
    with suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict):
            return found
    return None
