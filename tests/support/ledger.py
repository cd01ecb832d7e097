"""The book that a writer and its readers keep: an answer must never show less than what was acknowledged before the question."""

from dataclasses import dataclass, field

from tests.support.task_api import Seen


@dataclass(slots=True)
class Ledger:
    """Which version of each task has been acknowledged, what each version's title is, and where an answer contradicted that."""

    acknowledged: dict[str, int] = field(default_factory=dict)
    titles: dict[tuple[str, int], str] = field(default_factory=dict)
    contradictions: list[str] = field(default_factory=list)

    def version(self, task_id: str) -> int:
        """What a read that begins now has to show at least."""
        return self.acknowledged.get(task_id, 0)

    def wrote(self, seen: Seen) -> None:
        """Notes a write that was answered."""
        before = self.titles.setdefault((seen.id, seen.version), seen.title)
        if before != seen.title:
            self.contradictions.append(f"{seen.id}: two writes were both answered with version {seen.version}: {before!r} and {seen.title!r}")
        self.acknowledged[seen.id] = max(self.version(seen.id), seen.version)

    def read(self, seen: Seen, at_least: int) -> None:
        """Checks an answer against what `version` told before the question."""
        if seen.version < at_least:
            self.contradictions.append(f"{seen.id}: read version {seen.version} after {at_least} was acknowledged")
        title = self.titles.get((seen.id, seen.version), seen.title)
        if title != seen.title:
            self.contradictions.append(f"{seen.id}: version {seen.version} was written as {title!r} and read as {seen.title!r}")
