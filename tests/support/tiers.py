"""The tiers of the suite: what `make test` runs, and what only `make test-slow` and `make test-all` run besides. And the order of the files."""

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest

SLOW: Final = pytest.mark.slow("another case of a family whose first case is in `make test`")
# The folders whose files take longest. Workers that run files side by side begin with these, so that they end at about the same time.
LONGEST: Final = ("e2e", "task_service/query", "gateway", "devstack", "identity", "contract", "deploy", "model", "task_service")


def require_reasons(items: Iterable[pytest.Item]) -> None:
    """Fails the run if a test is left out of `make test` without a reason, which is the mark's argument."""
    for item in items:
        for mark in item.iter_markers():
            if mark.name in {"slow", "outage", "alone"} and not mark.args:
                raise pytest.UsageError(f'{item.nodeid} needs the reason why it is {mark.name}: @pytest.mark.{mark.name}("…")')


def outages_are_slow(items: Iterable[pytest.Item]) -> None:
    """Marks the tests that are marked `outage` as `slow` too."""
    for item in items:
        if (mark := item.get_closest_marker("outage")) is not None:
            item.add_marker(pytest.mark.slow(*mark.args))


def may_take(items: Iterable[pytest.Item], folder: Path, seconds: float) -> None:
    """Replaces the time limit of pyproject.toml for the tests in a folder."""
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.timeout(seconds))


def longest_first(items: list[pytest.Item]) -> None:
    """Sorts tests by their folders. Within a folder they keep their order."""
    items.sort(key=lambda item: next((rank for rank, folder in enumerate(LONGEST) if item.nodeid.startswith(f"tests/{folder}/")), len(LONGEST)))


def first_quick(cases: Iterable[Any], ids: Iterable[str] | None = None) -> Sequence[Any]:
    """Cases for parametrize that differ little from one another: `make test` runs the first, the slow tier runs the others."""
    values = list(cases)
    names: Sequence[str | None] = list(ids) if ids is not None else [None] * len(values)
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), id=name, marks=[SLOW] if number else [])
        for number, (value, name) in enumerate(zip(values, names, strict=True))
    ]


def sampled(cases: Iterable[Any], every: int, ids: Iterable[str] | None = None) -> Sequence[Any]:
    """Cases for parametrize that are derived from one rule: `make test` runs one in `every`, the slow tier runs the others."""
    values = list(cases)
    names: Sequence[str | None] = list(ids) if ids is not None else [None] * len(values)
    return [
        pytest.param(value, id=name, marks=[SLOW] if number % every else []) for number, (value, name) in enumerate(zip(values, names, strict=True))
    ]


def rotated(rows: Iterable[Any], columns: Sequence[str], name_of: Callable[[Any], str]) -> Sequence[Any]:
    """All pairs for parametrize. `make test` runs one pair of each row, with the columns in turn, the slow tier runs the others."""
    return [
        pytest.param(row, column, id=f"{column}-{name_of(row)}", marks=[] if (place - number) % len(columns) == 0 else [SLOW])
        for (number, row), (place, column) in product(enumerate(rows), enumerate(columns))
    ]
