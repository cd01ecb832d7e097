"""What an import or export had to leave out or change."""

from collections import Counter
from dataclasses import dataclass, field

from task_manager_client.errors import InvalidArgument


class UnreadableFile(InvalidArgument):
    """The file is not one of its format. Nothing was imported."""


@dataclass(frozen=True, slots=True)
class Note:
    """What was left out or changed of one item: its place in the file, such as `line 7`, its title, and what happened."""

    place: str
    title: str
    what: str


@dataclass(slots=True)
class Report:
    """The notes on single items, and how often something happened that concerns many items alike."""

    notes: list[Note] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def note(self, place: str, title: str, what: str) -> None:
        """Adds a note on an item."""
        self.notes.append(Note(place, title, what))

    def count(self, what: str, number: int = 1) -> None:
        """Counts what concerns many items alike."""
        self.counts[what] += number
