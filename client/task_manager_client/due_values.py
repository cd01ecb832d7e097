"""How a task repeats and when it reminds, as frozen dataclasses."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from task_manager_client.json_fields import Json, OpenEnum, optional_duration_of, optional_time_of, sent_duration, sent_time


class Anchor(OpenEnum):
    """What the next due date is counted from: the due date, or the completion. UNKNOWN stands for an anchor that a newer server has."""

    DUE = "DUE"
    COMPLETION = "COMPLETION"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Recurrence:
    """How a task repeats: a rule of RFC 5545, for example `FREQ=WEEKLY;BYDAY=MO,TH`, and what the next due date is counted from."""

    rrule: str
    anchor: Anchor = Anchor.DUE

    @classmethod
    def from_json(cls, raw: Json) -> Self:
        """Returns the recurrence in the API's JSON."""
        return cls(raw["rrule"], Anchor(raw.get("anchor", Anchor.DUE)))

    def to_json(self) -> dict[str, Any]:
        """Returns the API's JSON."""
        return {"rrule": self.rrule, "anchor": self.anchor.value}


@dataclass(frozen=True, slots=True)
class Reminder:
    """When a task reminds: at a time, or a duration before it is due, in whole seconds. Exactly one of the two is not None."""

    at: datetime | None = None
    before_due: timedelta | None = None

    @classmethod
    def from_json(cls, raw: Json) -> Self:
        """Returns the reminder in the API's JSON."""
        return cls(optional_time_of(raw.get("at")), optional_duration_of(raw.get("before_due")))

    def to_json(self) -> dict[str, Any]:
        """Returns the API's JSON. A naive time is in the local time zone."""
        body = {}
        if self.at is not None:
            body["at"] = sent_time(self.at)
        if self.before_due is not None:
            body["before_due"] = sent_duration(self.before_due)
        return body
