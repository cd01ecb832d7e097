"""The values of reminders."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


@dataclass(frozen=True, slots=True)
class DueUser:
    """A user with reminders that are due. `since` is the time of the oldest one."""

    user_id: UUID
    since: datetime


@dataclass(frozen=True, slots=True)
class Fired:
    """How many reminders of a user were logged, and the time of the oldest one, if there was any."""

    count: int
    oldest: datetime | None
