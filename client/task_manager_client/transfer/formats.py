"""The formats by their names on the command line."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import BinaryIO, Final, TypeAlias

from task_manager_client.project_values import Project
from task_manager_client.transfer import ics, ndjson, sheet, taskwarrior, todoist, vikunja
from task_manager_client.transfer.records import Content, Source
from task_manager_client.transfer.report import Report
from task_manager_client.values import Task

Reader: TypeAlias = Callable[[Source], Content]
Writer: TypeAlias = Callable[[Iterable[Project], Iterable[Task], BinaryIO, Report], None]

NDJSON: Final = "ndjson"
READERS: Final[Mapping[str, Reader]] = {
    NDJSON: ndjson.read,
    "csv": sheet.read,
    "ics": ics.read,
    "todoist": todoist.read,
    "vikunja": vikunja.read,
    "taskwarrior": taskwarrior.read,
}
WRITERS: Final[Mapping[str, Writer]] = {NDJSON: ndjson.write, "csv": sheet.write, "ics": ics.write}
_ENDINGS: Final = {".ndjson": NDJSON, ".jsonl": NDJSON, ".csv": "csv", ".ics": "ics"}


def of_name(name: str) -> str:
    """Returns the format that the name of a file says, or ""."""
    return _ENDINGS.get(PurePath(name).suffix.lower(), "")
