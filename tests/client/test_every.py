"""How a task repeats and when it reminds, as people type it, and back to text."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from task_manager_client import Reminder
from task_manager_client.cli import remind
from task_manager_client.cli.every import UnclearRule, described, rule
from task_manager_client.cli.zone import local_zone

pytestmark = pytest.mark.usefixtures("berlin")


def _now() -> datetime:
    # A Sunday.
    return datetime(2026, 11, 29, 12, 30, 15).astimezone()


RULES = [
    ("day", "FREQ=DAILY", "every day"),
    ("daily", "FREQ=DAILY", "every day"),
    ("other day", "FREQ=DAILY;INTERVAL=2", "every 2 days"),
    ("weekday", "FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR", "every weekday"),
    ("weekend", "FREQ=WEEKLY;BYDAY=SA,SU", "every week on Sat, Sun"),
    ("week", "FREQ=WEEKLY", "every week"),
    ("1 week", "FREQ=WEEKLY", "every week"),
    ("2 weeks", "FREQ=WEEKLY;INTERVAL=2", "every 2 weeks"),
    ("mon,thu", "FREQ=WEEKLY;BYDAY=MO,TH", "every week on Mon, Thu"),
    ("Monday and Thursday", "FREQ=WEEKLY;BYDAY=MO,TH", "every week on Mon, Thu"),
    ("2 weeks on fri", "FREQ=WEEKLY;INTERVAL=2;BYDAY=FR", "every 2 weeks on Fri"),
    ("month", "FREQ=MONTHLY", "every month"),
    ("15th", "FREQ=MONTHLY;BYMONTHDAY=15", "every month on the 15th"),
    ("3 months on the 1st", "FREQ=MONTHLY;INTERVAL=3;BYMONTHDAY=1", "every 3 months on the 1st"),
    ("1st and 15th", "FREQ=MONTHLY;BYMONTHDAY=1,15", "every month on the 1st, the 15th"),
    ("last day", "FREQ=MONTHLY;BYMONTHDAY=-1", "every month on the last day"),
    ("2nd tue", "FREQ=MONTHLY;BYDAY=2TU", "every month on the 2nd Tue"),
    ("last fri", "FREQ=MONTHLY;BYDAY=-1FR", "every month on the last Fri"),
    ("last friday of the month", "FREQ=MONTHLY;BYDAY=-1FR", "every month on the last Fri"),
    ("year", "FREQ=YEARLY", "every year"),
    ("RRULE:freq=daily;count=3", "FREQ=DAILY;COUNT=3", "FREQ=DAILY;COUNT=3"),
    ("FREQ=MONTHLY;BYDAY=MO,TU;BYSETPOS=-1", "FREQ=MONTHLY;BYDAY=MO,TU;BYSETPOS=-1", "FREQ=MONTHLY;BYDAY=MO,TU;BYSETPOS=-1"),
]


@pytest.mark.parametrize(("text", "means", "said"), RULES)
def test_a_rule_and_back(text: str, means: str, said: str) -> None:
    assert rule(text) == means
    assert described(means) == said


UNCLEAR = [
    "",
    "soon",
    "2",
    "2 mon",
    "mo",
    "month mon",
    "week 1st",
    "year 1st",
    "mon 1st",
    "1st mon tue",
    "2nd weekday",
    "last",
    "week week",
    "day off",
]


@pytest.mark.parametrize("text", [*UNCLEAR, "\x1b[31m", "1" * 1000])
def test_an_unclear_rule_is_an_error_with_examples(text: str) -> None:
    with pytest.raises(UnclearRule, match="for example: day, weekday, week"):
        rule(text)


@pytest.mark.parametrize("text", ["", "FREQ", "FREQ=", "FREQ=HOURLY", "FREQ=MONTHLY;BYMONTHDAY=1;BYDAY=MO", "FREQ=WEEKLY;BYDAY=XX", "x=y=z"])
def test_a_rule_that_this_version_cannot_say_is_shown(text: str) -> None:
    assert isinstance(described(text), str)


@pytest.mark.parametrize(
    ("text", "means", "shown"),
    [
        ("10m", timedelta(minutes=10), "10 minutes before"),
        ("2h", timedelta(hours=2), "2 hours before"),
        ("1d", timedelta(days=1), "1 day before"),
        ("1 week before", timedelta(weeks=1), "1 week before"),
        ("1h 30m", timedelta(minutes=90), "1 hour 30 minutes before"),
        ("1h30m", timedelta(minutes=90), "1 hour 30 minutes before"),
        ("36 hours", timedelta(hours=36), "1 day 12 hours before"),
        ("0", timedelta(), "when due"),
        ("0m", timedelta(), "when due"),
    ],
)
def test_a_reminder_before_the_task_is_due(text: str, means: timedelta, shown: str) -> None:
    assert remind.reminder(text, _now()) == Reminder(before_due=means)
    assert remind.shown(Reminder(before_due=means), _now()) == shown


def test_a_reminder_at_a_time() -> None:
    at = datetime.fromisoformat("2026-12-04T09:00+01:00")
    assert remind.reminder("fri 9am", _now()) == Reminder(at=at)
    assert remind.reminder("in 2 hours", _now()) == Reminder(at=datetime.fromisoformat("2026-11-29T14:30:15+01:00"))
    assert remind.shown(Reminder(at=at), _now()) == "Fri 09:00"


@pytest.mark.parametrize("text", ["", "soon", "10", "10 parsecs", "fri", "1mo", "d", "9" * 500 + "w", "1h" * 500])
def test_an_unclear_reminder_is_an_error_with_examples(text: str) -> None:
    with pytest.raises(remind.UnclearReminder, match="for example: 10m, 2h, 1d"):
        remind.reminder(text, _now())


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("Europe/Berlin", "Europe/Berlin"),
        (":Asia/Tokyo", "Asia/Tokyo"),
        ("/usr/share/zoneinfo/Asia/Tokyo", "Asia/Tokyo"),
        ("", "UTC"),
        ("CET-1CEST,M3.5.0,M10.5.0/3", ""),
        ("../../etc/passwd", ""),
    ],
)
def test_the_local_zone_of_the_environment(setting: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", setting)
    assert local_zone() == name


def test_the_local_zone_of_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TZ")
    link, name = tmp_path / "localtime", tmp_path / "timezone"
    assert local_zone(link, name) == "UTC"
    link.write_bytes(b"")
    assert local_zone(link, name) == ""
    name.write_text("Asia/Tokyo\n")
    assert local_zone(link, name) == "Asia/Tokyo"
    zone = tmp_path / "zoneinfo" / "Europe" / "Berlin"
    zone.parent.mkdir(parents=True)
    zone.write_bytes(b"")
    link.unlink()
    link.symlink_to(zone)
    assert local_zone(link, name) == "Europe/Berlin"
