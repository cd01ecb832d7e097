"""Days and time zones: their names, what their clocks show around a change, and where a day ends."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.errors import InvalidField
from task_service.due.dates import day_end, due_at, parse_day
from task_service.due.domain import LAST_DAY, LAST_DUE
from task_service.due.zones import UnknownZone, check_zone, instant_of, wall_clock, zone_named, zone_names

WRONG_DAYS = [
    "",
    "2026-1-01",
    "2026-01-01 ",
    "20260101",
    "2026-W01-1",
    "2026-02-29",
    "0000-01-01",
    "2026-00-10",
    "9999-12-31",
    "10000-01-01",
    "+026-01-01",
]
WRONG_ZONES = [
    "Mars/Olympus",
    "europe/berlin",
    "Europe",
    "Europe/Berlin ",
    "../UTC",
    "/etc/passwd",
    "right/UTC",
    "posixrules",
    "Factory",
    "UTC\0",
    "zone.tab",
]


@pytest.mark.parametrize("text", ["0001-01-01", "2024-02-29", "9999-12-30"])
def test_a_day_is_read(text: str) -> None:
    assert parse_day("task.due_on", text).isoformat() == text


@pytest.mark.parametrize("text", [*WRONG_DAYS, "２０２６-01-01"])  # noqa: RUF001 - digits that are not ASCII
def test_what_is_no_day_is_refused(text: str) -> None:
    with pytest.raises(InvalidField) as caught:
        parse_day("task.due_on", text)
    assert [violation.field for violation in caught.value.violations] == ["task.due_on"]


@pytest.mark.parametrize("name", WRONG_ZONES)
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(InvalidField) as caught:
        check_zone("task.time_zone", name)
    assert [violation.field for violation in caught.value.violations] == ["task.time_zone"]
    with pytest.raises(UnknownZone):
        zone_named(name)


def test_every_zone_can_be_loaded() -> None:
    names = zone_names()
    assert {"UTC", "Europe/Berlin", "Asia/Calcutta", "US/Eastern"} <= names
    for name in names:
        check_zone("task.time_zone", name)
        assert zone_named(name).key == name
    check_zone("task.time_zone", "")
    assert zone_named("") is zone_named("UTC")


@pytest.mark.parametrize(
    ("zone", "wall", "instant", "shown"),
    [
        ("Europe/Berlin", "2024-03-31T02:30", "2024-03-31T01:30", "2024-03-31T03:30"),
        ("Europe/Berlin", "2024-10-27T02:30", "2024-10-27T00:30", "2024-10-27T02:30"),
        ("Australia/Lord_Howe", "2024-10-06T02:15", "2024-10-05T15:45", "2024-10-06T02:45"),
        ("Australia/Lord_Howe", "2024-04-07T01:45", "2024-04-06T14:45", "2024-04-07T01:45"),
        ("Pacific/Apia", "2011-12-30T10:00", "2011-12-30T20:00", "2011-12-31T10:00"),
    ],
)
def test_a_time_in_a_gap_moves_forward_and_the_first_of_two_counts(zone: str, wall: str, instant: str, shown: str) -> None:
    found = instant_of(datetime.fromisoformat(wall), zone_named(zone))
    assert found == datetime.fromisoformat(instant).replace(tzinfo=UTC)
    assert wall_clock(found, zone_named(zone)) == datetime.fromisoformat(shown)


@pytest.mark.parametrize(
    ("zone", "day", "end"),
    [
        ("", "2026-01-01", "2026-01-02T00:00"),
        ("Europe/Berlin", "2026-06-30", "2026-06-30T22:00"),
        ("Asia/Kathmandu", "2026-06-30", "2026-06-30T18:15"),
        ("America/Sao_Paulo", "2018-11-03", "2018-11-04T03:00"),  # 00:00 is skipped: the day ends where 01:00 begins
        ("America/Toronto", "1919-03-30", "1919-03-31T04:30"),  # 23:30 to 00:30 is skipped
        ("Pacific/Apia", "2011-12-29", "2011-12-30T10:00"),  # the whole next day is skipped
        ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00"),  # there is no such day
        ("America/Sao_Paulo", "2018-02-17", "2018-02-18T03:00"),  # at midnight the clock was put back to 23:00
        ("America/Havana", "2026-10-31", "2026-11-01T04:00"),  # at 01:00 the clock is put back to 00:00
        ("America/St_Johns", "2010-11-06", "2010-11-07T03:30"),  # at 00:01 the clock was put back to 23:01
    ],
)
def test_a_day_ends_at_its_midnight(zone: str, day: str, end: str) -> None:
    assert due_at(None, date.fromisoformat(day), zone) == datetime.fromisoformat(end).replace(tzinfo=UTC)


def test_due_at_of_a_time_and_of_nothing() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert due_at(noon, None, "Europe/Berlin") is noon
    assert due_at(None, None, "Europe/Berlin") is None


@given(day=st.dates(max_value=LAST_DAY), name=st.sampled_from(sorted(zone_names())))
def test_a_day_ends_where_the_date_changes(day: date, name: str) -> None:
    zone = zone_named(name)
    end = day_end(day, zone)
    assert datetime(1, 1, 1, 0, 0, 1, tzinfo=UTC) <= end <= LAST_DUE
    assert wall_clock(end, zone).date() > day
    assert wall_clock(end - timedelta(microseconds=1), zone).date() <= day
