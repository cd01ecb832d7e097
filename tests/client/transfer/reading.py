"""Reads files as `tm import --dry-run` does, in the time zone Europe/Berlin."""

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from task_manager_client.cli import every, when
from task_manager_client.transfer import formats, importer
from task_manager_client.transfer.records import Source, TaskRecord
from task_manager_client.transfer.report import Report

SAMPLES = Path(__file__).parent / "samples"
ZONE = "Europe/Berlin"
# A Wednesday.
WRITTEN = datetime(2026, 12, 2, 12, tzinfo=ZoneInfo(ZONE))


class Reading:
    """A file that was read: its tasks by their titles, and what was noted."""

    def __init__(self, name: str, data: bytes, file_name: str = "") -> None:
        self.report = Report()
        source = Source(data, file_name, ZONE, WRITTEN, when.due, every.rule, self.report)
        self.plan = importer.plan(formats.READERS[name](source), self.report)

    @classmethod
    def sample(cls, name: str, file_name: str) -> "Reading":
        return cls(name, (SAMPLES / file_name).read_bytes(), file_name)

    @property
    def tasks(self) -> list[TaskRecord]:
        return [task for level in self.plan.levels for task in level]

    def task(self, title: str) -> TaskRecord:
        (found,) = [task for task in self.tasks if task.title == title]
        return found

    @property
    def notes(self) -> set[tuple[str, str]]:
        return {(note.place, note.what) for note in self.report.notes}
