"""Days and times as people type them, and back to text, in a zone with daylight saving time."""

from datetime import date, datetime

import pytest

from task_manager_client.cli.when import UnclearTime, due, end_of, late_on, shown

pytestmark = pytest.mark.usefixtures("berlin")


def _now() -> datetime:
    # A Sunday.
    return datetime(2026, 11, 29, 12, 30, 15).astimezone()


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("today", "2026-11-29"),
        ("tomorrow", "2026-11-30"),
        ("fri", "2026-12-04"),
        ("sun", "2026-12-06"),
        ("next monday", "2026-11-30"),
        ("in 3 days", "2026-12-02"),
        ("+2w", "2026-12-13"),
        ("in 3 months", "2027-02-28"),
        ("in 1 year", "2027-11-29"),
        ("24 dec", "2026-12-24"),
        ("december 24 2027", "2027-12-24"),
        ("2026-12-01", "2026-12-01"),
        ("2028-02-29", "2028-02-29"),
        ("today eod", "2026-11-29"),
        ("tomorrow midnight", "2026-11-30"),
        ("1st", "2026-12-01"),
        ("the 1st", "2026-12-01"),
        ("29th", "2026-11-29"),
        ("28th", "2026-12-28"),
        ("31st", "2026-12-31"),
        ("1st of december", "2026-12-01"),
        ("December 24th", "2026-12-24"),
    ],
)
def test_a_day(text: str, means: str) -> None:
    found = due(text, _now())
    assert (type(found), found) == (date, date.fromisoformat(means))


def test_the_31st_is_in_the_next_month_that_has_it() -> None:
    assert due("31st", datetime(2027, 2, 1, 12).astimezone()) == date(2027, 3, 31)


def test_a_day_of_the_month_with_a_time() -> None:
    assert due("1st 9am", _now()) == datetime.fromisoformat("2026-12-01T09:00+01:00")


def test_the_ends_of_a_day() -> None:
    # The clock goes forward at 2 in this night, and has 23 hours.
    day = date(2027, 3, 27)
    assert (late_on(day), end_of(day)) == (datetime.fromisoformat("2027-03-27T23:59+01:00"), datetime.fromisoformat("2027-03-28T00:00+01:00"))
    at = _now()
    assert end_of(at) == at


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("Today 5pm", "2026-11-29T17:00+01:00"),
        ("tonight", "2026-11-29T20:00+01:00"),
        ("tomorrow 9am", "2026-11-30T09:00+01:00"),
        ("tomorrow at 12:15am", "2026-11-30T00:15+01:00"),
        ("tom noon", "2026-11-30T12:00+01:00"),
        ("Friday, 17:00", "2026-12-04T17:00+01:00"),
        ("in 3 days 8:05", "2026-12-02T08:05+01:00"),
        ("in 90 minutes", "2026-11-29T14:00:15+01:00"),
        ("in 2 hours", "2026-11-29T14:30:15+01:00"),
        ("9am", "2026-11-30T09:00+01:00"),
        ("18:45", "2026-11-29T18:45+01:00"),
        ("Dec 24 18:00", "2026-12-24T18:00+01:00"),
        ("1 july 9am", "2027-07-01T09:00+02:00"),
        ("2026-12-01 9am", "2026-12-01T09:00+01:00"),
        ("2026-12-01T09:00", "2026-12-01T09:00+01:00"),
        ("2027-07-01 09:00:30", "2027-07-01T09:00:30+02:00"),
        ("2026-12-01T09:00Z", "2026-12-01T10:00+01:00"),
        ("2026-12-01t09:00-05:00", "2026-12-01T15:00+01:00"),
        # The hour from 2 to 3 does not exist: RFC 5545 moves it forward.
        ("2027-03-28T02:30", "2027-03-28T03:30+02:00"),
    ],
)
def test_a_time(text: str, means: str) -> None:
    assert due(text, _now()) == datetime.fromisoformat(means)


UNCLEAR = [
    "",
    "soon",
    "9",
    "25:00",
    "13pm",
    "0am",
    "2026-02-30",
    "2026-13-01T09:00",
    "31 feb",
    "29 feb",
    "tomorrow 9",
    "in 3 parsecs",
    "fr",
    "5 foo",
    "0th",
    "32nd",
]


@pytest.mark.parametrize("text", [*UNCLEAR, "in 9999 years", "12/24", "today tomorrow", "in 2 hours 9am", "1" * 1000, "\x1b[31m"])
def test_what_is_unclear_is_an_error_with_examples(text: str) -> None:
    with pytest.raises(UnclearTime, match="for example: today, tomorrow 9am"):
        due(text, _now())


@pytest.mark.parametrize(
    ("at", "text"),
    [
        ("2026-11-29T23:59+01:00", "today"),
        ("2026-11-29T17:00+01:00", "today 17:00"),
        ("2026-11-30T08:00Z", "tomorrow 09:00"),
        ("2026-11-28T09:00+01:00", "yesterday 09:00"),
        ("2026-12-04T23:59+01:00", "Fri"),
        ("2026-12-06T09:00+01:00", "6 Dec 09:00"),
        ("2026-01-05T23:59+01:00", "5 Jan"),
        ("2027-07-01T09:00+02:00", "1 Jul 2027 09:00"),
    ],
)
def test_a_time_as_text(at: str, text: str) -> None:
    assert shown(datetime.fromisoformat(at), _now()) == text


@pytest.mark.parametrize(
    ("day", "text"), [(date(2026, 11, 29), "today"), (date(2026, 12, 4), "Fri"), (date(2026, 12, 24), "24 Dec"), (date(2027, 1, 1), "1 Jan 2027")]
)
def test_a_day_as_text(day: date, text: str) -> None:
    assert shown(day, _now()) == text
