"""The language of recurrence rules: what is accepted, what is refused with the name of the part, and the canonical text."""

from datetime import UTC, date, datetime

import pytest
from hypothesis import given

from servicekit.errors import InvalidField
from task_service.due.domain import Frequency, Rule, WeekDay
from task_service.due.rule_syntax import MAX_CHARACTERS, parse_rule, rule_text
from tests.task_service.due.rules import rules

FIELD = "task.recurrence.rrule"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("FREQ=DAILY", Rule(Frequency.DAILY)),
        ("INTERVAL=999;FREQ=YEARLY", Rule(Frequency.YEARLY, interval=999)),
        ("FREQ=WEEKLY;COUNT=999999;BYDAY=SU,MO;WKST=SU", Rule(Frequency.WEEKLY, count=999_999, days=(WeekDay(0, 0), WeekDay(0, 6)), week_start=6)),
        ("FREQ=MONTHLY;BYDAY=+1MO,-5SU", Rule(Frequency.MONTHLY, days=(WeekDay(-5, 6), WeekDay(1, 0)))),
        ("FREQ=YEARLY;BYDAY=53FR", Rule(Frequency.YEARLY, days=(WeekDay(53, 4),))),
        ("FREQ=YEARLY;BYMONTH=12,01;BYMONTHDAY=-31,+1,31", Rule(Frequency.YEARLY, months=(1, 12), month_days=(-31, 1, 31))),
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29", Rule(Frequency.YEARLY, months=(2,), month_days=(29,))),
        ("FREQ=YEARLY;BYDAY=MO;BYSETPOS=366,-366", Rule(Frequency.YEARLY, days=(WeekDay(0, 0),), positions=(-366, 366))),
        ("FREQ=DAILY;UNTIL=20261231", Rule(Frequency.DAILY, until=date(2026, 12, 31))),
        ("FREQ=DAILY;UNTIL=20261231T235959Z", Rule(Frequency.DAILY, until=datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC))),
    ],
)
def test_a_rule_is_read(text: str, rule: Rule) -> None:
    assert parse_rule(FIELD, text) == rule


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("freq=daily", "FREQ=DAILY"),
        ("WKST=MO;INTERVAL=1;FREQ=DAILY", "FREQ=DAILY"),
        ("BYSETPOS=-1;BYDAY=FR,MO;FREQ=MONTHLY", "FREQ=MONTHLY;BYDAY=MO,FR;BYSETPOS=-1"),
        ("FREQ=WEEKLY;WKST=SU;BYDAY=TU;INTERVAL=02;UNTIL=00010101", "FREQ=WEEKLY;INTERVAL=2;UNTIL=00010101;BYDAY=TU;WKST=SU"),
        ("FREQ=YEARLY;BYMONTH=1;UNTIL=20270101t000000z;BYDAY=+2MO,-1MO", "FREQ=YEARLY;UNTIL=20270101T000000Z;BYMONTH=1;BYDAY=-1MO,2MO"),
    ],
)
def test_a_rule_has_one_text(text: str, canonical: str) -> None:
    assert rule_text(parse_rule(FIELD, text)) == canonical


@given(rule=rules())
def test_the_canonical_text_means_the_same(rule: Rule) -> None:
    assert parse_rule(FIELD, rule_text(rule)) == rule


REFUSED = [
    ("a part", ["", ";", ";FREQ=DAILY", "FREQ=DAILY;", "FREQ=DAILY;;COUNT=1", "=1;FREQ=DAILY"]),
    ("RRULE:FREQ", ["RRULE:FREQ=DAILY"]),
    ("must have", ["FREQ=DAILY;COUNT=" + "1" * MAX_CHARACTERS, "FREQ=DA\u0131LY", "\u017fREQ=DAILY", "FREQ=DAILY;INTERVAL=\u0663"]),
    ("FREQ", ["COUNT=1", "FREQ", "FREQ=", "FREQ=HOURLY", "FREQ=SECONDLY", "FREQ=DAILY;FREQ=DAILY", "FREQ= DAILY", "FREQ=DAILY,WEEKLY"]),
    ("BYHOUR", ["FREQ=DAILY;BYHOUR=1"]),
    ("BYYEARDAY", ["FREQ=YEARLY;BYYEARDAY=1"]),
    ("BYWEEKNO", ["FREQ=YEARLY;BYWEEKNO=20"]),
    ("BYEASTER", ["FREQ=YEARLY;BYEASTER=0"]),
    ("RSCALE", ["FREQ=YEARLY;RSCALE=GREGORIAN"]),
    ("DTSTART", ["FREQ=DAILY;DTSTART=20260101"]),
    ("X-A-LONG-NAME-THAT-W…", ["FREQ=DAILY;X-A-LONG-NAME-THAT-WOULD-FILL-THE-ANSWER=1"]),
    ("INTERVAL", [f"FREQ=DAILY;INTERVAL={value}" for value in ("0", "1000", "-1", "+1", "1.5", "x", "1,2", "0000001")]),
    ("COUNT", [f"FREQ=DAILY;COUNT={value}" for value in ("0", "1000000", "-1", " 1")]),
    ("COUNT and UNTIL", ["FREQ=DAILY;COUNT=1;UNTIL=20260101"]),
    (
        "UNTIL",
        [f"FREQ=DAILY;UNTIL={value}" for value in ("2026-01-01", "20260230", "20260101T000000", "20260101T240000Z", "20260101T000060Z", "00000101")],
    ),
    ("BYMONTH", [f"FREQ=YEARLY;BYMONTH={value}" for value in ("0", "13", "-1", "1,1", "1,01", "1,,2", "JAN")]),
    ("BYMONTHDAY", [f"FREQ=MONTHLY;BYMONTHDAY={value}" for value in ("0", "32", "-32", "1,1", "1,+1", "1,", "1000")]),
    ("BYMONTHDAY", ["FREQ=WEEKLY;BYMONTHDAY=1", "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "FREQ=DAILY;BYMONTH=2,4;BYMONTHDAY=-31"]),
    ("BYDAY", [f"FREQ=MONTHLY;BYDAY={value}" for value in ("XX", "MO,MO", "1MO,+1MO", "0MO", "6MO", "-6MO", "MO,1TU", "M", "1", "MO 1", "100MO")]),
    ("BYDAY", ["FREQ=DAILY;BYDAY=1MO", "FREQ=WEEKLY;BYDAY=1MO", "FREQ=YEARLY;BYDAY=54MO", "FREQ=YEARLY;BYMONTH=1;BYDAY=6MO"]),
    ("BYDAY", ["FREQ=MONTHLY;BYDAY=1MO;BYMONTHDAY=1"]),
    ("BYSETPOS", [f"FREQ=MONTHLY;BYDAY=MO;BYSETPOS={value}" for value in ("0", "32", "-32", "367", "1,1")]),
    (
        "BYSETPOS",
        ["FREQ=MONTHLY;BYSETPOS=1", "FREQ=DAILY;BYDAY=MO;BYSETPOS=1", "FREQ=WEEKLY;BYDAY=MO,TU;BYSETPOS=3", "FREQ=YEARLY;BYMONTH=1;BYSETPOS=367"],
    ),
    ("WKST", ["FREQ=WEEKLY;WKST=1", "FREQ=WEEKLY;WKST=1MO", "FREQ=WEEKLY;WKST=MO,TU"]),
]


@pytest.mark.parametrize(("part", "text"), [(part, text) for part, texts in REFUSED for text in texts])
def test_what_is_no_rule_is_refused_by_its_part(part: str, text: str) -> None:
    with pytest.raises(InvalidField) as caught:
        parse_rule(FIELD, text)
    (violation,) = caught.value.violations
    assert violation.field == FIELD
    assert violation.description.startswith(f"{part} ")
