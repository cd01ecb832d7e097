"""The state of the cache, which all replicas share, and for how long a replica may rely on what it has read of it."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final
from uuid import UUID

# How long a replica relies on the state that it has read, by its own monotonic clock, counted from before it asked.
VALID_SECONDS: Final = 0.45
# How long a write without a fence waits after OFF, and ARMED after OFF. The difference allows for clocks of different speed.
WAIT_SECONDS: Final = 0.5
ROUND_SECONDS: Final = 0.25
# For how long a replica that does not reach Redis keeps an OFF cache OFF. It says so at each of its rounds.
UNREACHABLE_SECONDS: Final = 1.0
# Fences of writes with an unknown outcome stay. With more fences than this for longer than that, a replica starts a new generation. Running writes
# count too, so the number is above that of the tasks that are written at the same time.
MAX_FENCED_TASKS: Final = 10_000
MANY_FENCES_SECONDS: Final = 60.0


class Mode(IntEnum):
    """OFF: nobody uses Redis. ARMED: writes set fences, and no read relies on Redis. ON: reads rely on Redis."""

    OFF = 1
    ARMED = 2
    ON = 3


@dataclass(frozen=True, slots=True)
class State:
    """The row in PostgreSQL.

    `process` is the run id of the Redis process that holds the generation's keys, and `replication` its replication id: the same process has another
    one after it was a replica meanwhile, and has taken over other data. Both are empty while OFF.
    """

    generation: UUID
    mode: Mode
    process: str
    replication: str

    @property
    def fenced(self) -> bool:
        """Whether a write in this state must have set its fences."""
        return self.mode is not Mode.OFF
