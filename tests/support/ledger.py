"""A record that a writer and its readers share. A read must never return an older version than one acknowledged before the read began."""

from dataclasses import dataclass, field

from tests.support.task_api import Seen


@dataclass(slots=True)
class Ledger:
    """The acknowledged version of each task, the title of each version, and the answers that contradict them."""

    acknowledged: dict[str, int] = field(default_factory=dict)
    titles: dict[tuple[str, int], str] = field(default_factory=dict)
    contradictions: list[str] = field(default_factory=list)

    def version(self, task_id: str) -> int:
        """Returns the lowest version that a read may return if it begins now."""
        return self.acknowledged.get(task_id, 0)

    def wrote(self, seen: Seen) -> None:
        """Records an answered write."""
        before = self.titles.setdefault((seen.id, seen.version), seen.title)
        if before != seen.title:
            self.contradictions.append(f"{seen.id}: two writes were both answered with version {seen.version}: {before!r} and {seen.title!r}")
        self.acknowledged[seen.id] = max(self.version(seen.id), seen.version)

    def read(self, seen: Seen, at_least: int) -> None:
        """Checks a read against `at_least`, the result of `version` before the read began."""
        if seen.version < at_least:
            self.contradictions.append(f"{seen.id}: read version {seen.version} after {at_least} was acknowledged")
        title = self.titles.get((seen.id, seen.version), seen.title)
        if title != seen.title:
            self.contradictions.append(f"{seen.id}: version {seen.version} was written as {title!r} and read as {seen.title!r}")
