"""Time zones by their IANA names, and the conversion between instants and the wall clock of a zone.

All zones come from the package tzdata, never from the system, so all replicas agree. A name must be in the package's list before a file is read.
"""

from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo

from servicekit.errors import InvalidField


class UnknownZone(LookupError):
    """No time zone has this name."""


def zone_named(name: str) -> ZoneInfo:
    """Returns the zone with an IANA name, in that spelling; "" is UTC. Raises UnknownZone."""
    name = name or "UTC"
    if name not in zone_names():
        raise UnknownZone(name)
    return _loaded(name)


def check_zone(field: str, name: str) -> None:
    """Raises InvalidField for `field` if no zone has this name."""
    if name and name not in zone_names():
        raise InvalidField.of(field, "must be the IANA name of a time zone in its exact spelling, such as Europe/Berlin, or empty for UTC")


@cache
def zone_names() -> frozenset[str]:
    """Returns the names of all zones, old names included."""
    return frozenset(files("tzdata").joinpath("zones").read_text(encoding="utf-8").split()) - {"Factory"}  # the clock of a system without a zone


@cache
def _loaded(name: str) -> ZoneInfo:
    with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


def instant_of(wall: datetime, zone: ZoneInfo) -> datetime:
    """Returns the instant, in UTC, at which the clock of the zone shows `wall`, a time without a zone (RFC 5545 §3.3.5).

    A time in a gap moves forward by the length of the gap, because it is read with the offset before the gap. Of a time that occurs twice, the first
    counts. Raises OverflowError if the instant is outside the years 1 to 9999.
    """
    return wall.replace(tzinfo=zone, fold=0).astimezone(UTC)


def wall_clock(instant: datetime, zone: ZoneInfo) -> datetime:
    """Returns what the clock of the zone shows at an instant, without a zone. Raises OverflowError outside the years 1 to 9999."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)
