"""Bugs of due dates and recurrence rules."""

from typing import Final

from tests.planted.bug import Bug

RECURRENCE: Final = "task_service/due/recurrence.py"
RULE_DAYS: Final = "task_service/due/rule_days.py"
ZONES: Final = "task_service/due/zones.py"
TESTS: Final = ("tests/task_service/due/test_recurrence.py",)
TABLE: Final = ("tests/task_service/due/test_occurrences.py",)
DAYS_TESTS: Final = ("tests/task_service/due/test_rule_days.py",)

RECURRENCE_BUGS: Final = (
    Bug("COUNT does not include the first task", RECURRENCE, "series.number >= rule.count", "series.number > rule.count", TESTS),
    Bug("a time in a gap of the clock moves backwards", ZONES, "wall.replace(tzinfo=zone, fold=0)", "wall.replace(tzinfo=zone, fold=1)", TABLE),
    Bug(
        "a time that a gap has moved stays moved",
        RECURRENCE,
        "Series(series.start, series.number + 1)",
        "series_from(occurrence, number=series.number + 1)",
        TABLE,
    ),
    Bug("WKST is ignored", RULE_DAYS, "(start.weekday() - rule.week_start) % 7", "start.weekday()", TABLE),
    Bug("the anchor is ignored", RECURRENCE, "if anchor is Anchor.COMPLETION:", "if anchor is None:", TESTS),
    Bug("a completion before the time of day recurs on the same day", RECURRENCE, "due, day + _DAY, completed_at)", "due, day, completed_at)", TESTS),
    Bug("UNTIL excludes its own day", RECURRENCE, "return until is not None and day > until", "return until is not None and day >= until", TESTS),
    Bug(
        "BYSETPOS of a week counts from the start of the series", RULE_DAYS, "range(max(week, 1),", "range(max(week, start.toordinal()),", DAYS_TESTS
    ),
    Bug(
        "the search for a day that no year has does not end",
        RULE_DAYS,
        "interval=MAXYEAR if is_year else 12 * MAXYEAR,",
        "interval=1,",
        (*DAYS_TESTS, "-k", "sparse_rule"),
    ),
    Bug(
        "a search begins at the start of the series",
        RULE_DAYS,
        "max(0, -(-(least - first) // interval)) * interval",
        "min(interval, max(0, least - first))",
        DAYS_TESTS,
    ),
)
