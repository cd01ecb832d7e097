"""The next due date: COUNT, UNTIL, both anchors, changes of the clock, and the ends of the calendar."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta

import pytest

from servicekit.errors import InvalidField
from task_service.due.domain import LAST_DAY, Anchor, Due, Series
from task_service.due.recurrence import next_due, series_from
from task_service.due.rule_syntax import parse_rule

BERLIN = "Europe/Berlin"
YEARS_LATER = datetime(2031, 5, 5, 5, 5, tzinfo=UTC)


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _chain(rule: str, due: Due, anchor: Anchor = Anchor.DUE, completed_at: datetime = YEARS_LATER) -> Iterator[Due]:
    """Yields when the tasks after the first are due."""
    series = series_from(due)
    while found := next_due(parse_rule("rrule", rule), anchor, series, due, completed_at):
        due, series = found.due, found.series
        yield due


def _next(rule: str, due: Due, anchor: Anchor, completed_at: str) -> str:
    following = next(_chain(rule, due, anchor, _at(completed_at)))
    return following.due_on.isoformat() if following.due_on else f"{following.due_date:%Y-%m-%dT%H:%M}"


@pytest.mark.parametrize(("count", "more"), [(1, 0), (2, 1), (5, 4)])
@pytest.mark.parametrize("anchor", Anchor)
@pytest.mark.parametrize("due", [Due(due_on=date(2026, 1, 1)), Due(due_date=_at("2026-01-01T12:00"), time_zone=BERLIN)])
def test_count_includes_the_first(due: Due, anchor: Anchor, count: int, more: int) -> None:
    assert len(list(_chain(f"FREQ=DAILY;COUNT={count}", due, anchor))) == more


def test_count_includes_a_first_that_the_rule_has_not() -> None:
    tuesday = date(2026, 1, 6)
    found = [due.due_on for due in _chain("FREQ=WEEKLY;BYDAY=MO;COUNT=3", Due(due_on=tuesday))]
    assert found == [date(2026, 1, 12), date(2026, 1, 19)]


@pytest.mark.parametrize(
    ("until", "last"),
    [
        ("20260103", "2026-01-03"),
        ("20260102T225959Z", "2026-01-02"),
        ("20260102T230000Z", "2026-01-03"),  # midnight in Berlin
        ("20260101", None),
        ("20251231", None),
    ],
)
def test_until_includes_the_day_on_which_it_is(until: str, last: str | None) -> None:
    found = [due.due_on for due in _chain(f"FREQ=DAILY;UNTIL={until}", Due(due_on=date(2026, 1, 1), time_zone=BERLIN))]
    assert (found[-1].isoformat() if found and found[-1] else None) == last


@pytest.mark.parametrize(
    ("until", "last"),
    [
        ("20260103T080000Z", "2026-01-03T08:00"),
        ("20260103T075959Z", "2026-01-02T08:00"),
        ("20260103", "2026-01-03T08:00"),
        ("20260102", "2026-01-02T08:00"),
    ],
)
def test_until_includes_the_time_itself(until: str, last: str) -> None:
    *_, found = _chain(f"FREQ=DAILY;UNTIL={until}", Due(due_date=_at("2026-01-01T08:00"), time_zone=BERLIN))
    assert found.due_date == _at(last)


def test_a_date_of_until_is_a_day_in_the_zone() -> None:
    # 23:30 UTC is the next day in Berlin.
    found = [due.due_date for due in _chain("FREQ=DAILY;UNTIL=20260103", Due(due_date=_at("2025-12-31T23:30"), time_zone=BERLIN))]
    assert found == [_at("2026-01-01T23:30"), _at("2026-01-02T23:30")]


def test_an_until_at_the_end_of_the_calendar_ends_nothing() -> None:
    for until in ("99991231", "99991231T235959Z"):
        assert next(_chain(f"FREQ=DAILY;UNTIL={until}", Due(due_on=date(2026, 1, 1), time_zone="Asia/Tokyo"))).due_on == date(2026, 1, 2)


DAY = Due(due_on=date(2026, 3, 2), time_zone=BERLIN)  # a Monday
MORNING = Due(due_date=_at("2026-03-02T08:00"), time_zone=BERLIN)  # 09:00


@pytest.mark.parametrize(
    ("rule", "due", "anchor", "completed_at", "following"),
    [
        # The old due date counts, and not the completion, however early or late.
        ("FREQ=DAILY", DAY, Anchor.DUE, "2026-01-01T00:00", "2026-03-03"),
        ("FREQ=DAILY", DAY, Anchor.DUE, "2029-01-01T00:00", "2026-03-03"),
        ("FREQ=DAILY;INTERVAL=3", MORNING, Anchor.DUE, "2029-01-01T00:00", "2026-03-05T08:00"),
        # The day of the completion counts, in the zone; the time of day stays.
        ("FREQ=DAILY", DAY, Anchor.COMPLETION, "2026-03-10T22:59", "2026-03-11"),
        ("FREQ=DAILY", DAY, Anchor.COMPLETION, "2026-03-10T23:00", "2026-03-12"),
        ("FREQ=DAILY;INTERVAL=10", MORNING, Anchor.COMPLETION, "2026-03-10T05:00", "2026-03-20T08:00"),
        ("FREQ=DAILY;INTERVAL=10", MORNING, Anchor.COMPLETION, "2026-03-10T15:00", "2026-03-20T08:00"),
        ("FREQ=DAILY", MORNING, Anchor.COMPLETION, "2026-03-30T05:00", "2026-03-31T07:00"),  # summer time
        ("FREQ=DAILY", MORNING, Anchor.COMPLETION, "2026-02-01T12:00", "2026-02-02T08:00"),
        ("FREQ=WEEKLY", DAY, Anchor.COMPLETION, "2026-03-11T12:00", "2026-03-18"),
        ("FREQ=WEEKLY;BYDAY=MO", DAY, Anchor.COMPLETION, "2026-03-09T12:00", "2026-03-16"),
        ("FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,FR", DAY, Anchor.COMPLETION, "2026-03-11T12:00", "2026-03-13"),
        ("FREQ=WEEKLY;INTERVAL=2;BYDAY=MO", DAY, Anchor.COMPLETION, "2026-03-11T12:00", "2026-03-23"),
        ("FREQ=WEEKLY;INTERVAL=2;BYDAY=SU,MO;WKST=MO", DAY, Anchor.COMPLETION, "2026-03-07T12:00", "2026-03-08"),
        ("FREQ=WEEKLY;INTERVAL=2;BYDAY=SU,MO;WKST=SU", DAY, Anchor.COMPLETION, "2026-03-07T12:00", "2026-03-15"),
        ("FREQ=MONTHLY", DAY, Anchor.COMPLETION, "2026-01-31T12:00", "2026-03-31"),
        ("FREQ=YEARLY", DAY, Anchor.COMPLETION, "2028-02-29T12:00", "2032-02-29"),
    ],
)
def test_the_anchor(rule: str, due: Due, anchor: Anchor, completed_at: str, following: str) -> None:
    assert _next(rule, due, anchor, completed_at) == following


def test_a_time_that_a_gap_moved_is_back_the_next_day() -> None:
    found = [due.due_date for due, _ in zip(_chain("FREQ=DAILY", Due(due_date=_at("2024-03-30T01:30"), time_zone=BERLIN)), range(3), strict=False)]
    assert found == [_at("2024-03-31T01:30"), _at("2024-04-01T00:30"), _at("2024-04-02T00:30")]


def test_a_time_that_occurs_twice_is_taken_once() -> None:
    found = [due.due_date for due, _ in zip(_chain("FREQ=DAILY", Due(due_date=_at("2024-10-26T00:30"), time_zone=BERLIN)), range(3), strict=False)]
    assert found == [_at("2024-10-27T00:30"), _at("2024-10-28T01:30"), _at("2024-10-29T01:30")]
    # From the second of the two, the next is the next day's.
    assert next(_chain("FREQ=DAILY", Due(due_date=_at("2024-10-27T01:30"), time_zone=BERLIN))).due_date == _at("2024-10-28T01:30")


def test_a_day_that_the_zone_skipped_is_not_due_twice() -> None:
    # In Apia, 30 December 2011 did not exist: its 10:00 is that of the 31st.
    apia = Due(due_date=datetime.combine(date(2011, 12, 28), time(10), UTC) + timedelta(hours=10), time_zone="Pacific/Apia")
    found = [due.due_date for due, _ in zip(_chain("FREQ=DAILY", apia), range(4), strict=False)]
    assert found == [_at("2011-12-29T20:00"), _at("2011-12-30T20:00"), _at("2011-12-31T20:00"), _at("2012-01-01T20:00")]


def test_microseconds_stay() -> None:
    due = Due(due_date=_at("2026-01-01T08:00:00.000001"))
    assert next(_chain("FREQ=DAILY", due)).due_date == _at("2026-01-02T08:00:00.000001")


def test_the_series_is_that_of_its_start() -> None:
    start = Series(datetime(2024, 1, 31, 9), 1)  # noqa: DTZ001 - a wall clock
    due = Due(due_date=_at("2024-01-31T08:00"), time_zone=BERLIN)
    assert series_from(due) == start
    assert series_from(due, number=7) == Series(start.start, 7)
    assert series_from(Due(due_on=date(2024, 1, 31))).start == datetime(2024, 1, 31)  # noqa: DTZ001 - a wall clock
    found = next_due(parse_rule("rrule", "FREQ=MONTHLY"), Anchor.DUE, start, due, YEARS_LATER)
    assert found is not None
    assert (found.due.due_date, found.series) == (_at("2024-03-31T07:00"), Series(start.start, 2))


@pytest.mark.parametrize(
    ("rule", "due"),
    [
        ("FREQ=DAILY", Due(due_on=LAST_DAY)),
        ("FREQ=YEARLY", Due(due_on=date(9999, 1, 1))),
        ("FREQ=WEEKLY;BYDAY=SA", Due(due_on=date(9999, 12, 26))),
        ("FREQ=WEEKLY", Due(due_date=_at("9999-12-27T00:00"), time_zone="Asia/Tokyo")),
        ("FREQ=MONTHLY", Due(due_date=_at("9999-12-01T00:00"))),
        ("FREQ=DAILY", Due(due_date=_at("9999-12-31T23:59:59"))),
        ("FREQ=DAILY", Due(due_date=_at("9999-12-31T06:00"), time_zone="Etc/GMT+12")),
    ],
)
def test_the_calendar_ends(rule: str, due: Due) -> None:
    assert list(_chain(rule, due)) == []


def test_a_series_needs_a_due_date_with_a_wall_clock() -> None:
    for due in (
        Due(),
        Due(due_date=_at("9999-12-31T23:00"), time_zone="Asia/Tokyo"),
        Due(due_date=_at("0001-01-01T00:00:01"), time_zone="Etc/GMT+1"),
    ):
        with pytest.raises(InvalidField):
            series_from(due)
