"""The next ten due dates of rules in many zones, as other implementations of RFC 5545 have them (occurrences.mjs makes the table)."""

import json
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any, Final

import pytest

from task_service.due.domain import Anchor, Due
from task_service.due.recurrence import next_due, series_from
from task_service.due.rule_syntax import parse_rule
from task_service.due.zones import instant_of, zone_named

CASES: Final[list[dict[str, Any]]] = json.loads(Path(__file__).with_name("occurrences.json").read_text(encoding="utf-8"))
NEXT: Final = 10


def _name(case: dict[str, Any]) -> str:
    return f"{case['rule']} {case['start']} {case['zone']}"


def test_the_table_is_large_enough() -> None:
    assert len({_name(case) for case in CASES}) == len(CASES) >= 200
    assert len({case["zone"] for case in CASES}) >= 15


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_the_next_ten(case: dict[str, Any]) -> None:
    rule, zone, start = parse_rule("rrule", case["rule"]), case["zone"], case["start"]
    if "T" in start:
        due = Due(due_date=instant_of(datetime.fromisoformat(start), zone_named(zone)), time_zone=zone)
    else:
        due = Due(due_on=date.fromisoformat(start), time_zone=zone)
    series, found = series_from(due), []
    completed_at = datetime.combine(date(2030, 1, 1), time(), UTC)
    while len(found) < NEXT and (following := next_due(rule, Anchor.DUE, series, due, completed_at)):
        due, series = following.due, following.series
        found.append(due.due_on.isoformat() if due.due_on else f"{due.due_date:%Y-%m-%dT%H:%M:%SZ}")
    assert found == case["next"]
