"""What a file says about projects and tasks, in one form for all formats."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property
from typing import Final
from zoneinfo import ZoneInfo

from task_manager_client.transfer.report import Report, UnreadableFile
from task_manager_client.values import NewTaskDetails

# The name of the list of tasks without a project: in other systems it is a project like the others.
INBOX: Final = "inbox"


@dataclass(slots=True)
class ProjectRecord:
    """A project of a file. `key` names it within the file.

    by_name: the file knows the project only by its name, so a project of the account with that name is taken instead of a new one.
    """

    key: str
    name: str
    place: str
    description: str = ""
    color: str = ""
    is_archived: bool = False
    deleted_at: datetime | None = None
    by_name: bool = False


@dataclass(slots=True)
class TaskRecord:
    """A task of a file. `key` names it within the file, `place` says where it is there: `line 7`.

    project and parent are keys, "" for none. deleted_at is when the task was moved to the bin, None if it is not there.
    """

    key: str
    title: str
    place: str
    project: str = ""
    parent: str = ""
    deleted_at: datetime | None = None
    fields: NewTaskDetails = field(default_factory=NewTaskDetails)


@dataclass(slots=True)
class Content:
    """The projects and tasks of a file. The projects, and the tasks of each list, are in their order."""

    projects: list[ProjectRecord] = field(default_factory=list)
    tasks: list[TaskRecord] = field(default_factory=list)

    def named_project(self, name: str, place: str) -> str:
        """Returns the key of the project that the file knows only by this name, "" for the inbox."""
        name = name.strip()
        key = name.casefold()
        if key in {"", INBOX}:
            return ""
        if key not in self._named:
            self._named[key] = ProjectRecord(key, name, place, by_name=True)
            self.projects.append(self._named[key])
        return key

    _named: dict[str, ProjectRecord] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Source:
    """A file to import.

    name: the name of the file, without folders, or "". data: its bytes. zone: the name of the local time zone, or "" if it is unknown.
    written: when the file was written, aware: dates such as `tomorrow` count from then. due, rule: read what people type as a due date or as a
    recurrence; they raise ValueError.
    """

    data: bytes
    name: str
    zone: str
    written: datetime
    due: Callable[[str, datetime], date]
    rule: Callable[[str], str]
    report: Report

    @cached_property
    def text(self) -> str:
        """The file as text. Raises UnreadableFile."""
        try:
            return self.data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = self.data.count(b"\n", 0, error.start) + 1
            raise UnreadableFile(f"line {line} is not text in UTF-8") from error

    @cached_property
    def local(self) -> ZoneInfo:
        """The local time zone, UTC if it is unknown."""
        return ZoneInfo(self.zone or "UTC")
