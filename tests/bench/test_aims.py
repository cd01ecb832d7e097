"""The comparison with the rivals: from the rows of their benchmark to ratios, aims and the table."""

import re

import pytest

from bench.aims import AIMS, FASTAPI, GO, OURS, SCENARIOS, cost, table, verdicts


def row(scenario: str, name: str, round_: int, p99_ms: float = 1.0, **cpu: float) -> dict[str, object]:
    """A row as the rivals' benchmark writes it, with the fields that are read."""
    return {"scenario": scenario, "target": name, "round": round_, "p99_ms": p99_ms, "errors": 0, "cpu_s_per_1000": cpu or {"target": 1.0}}


def test_the_cost_of_a_call_includes_the_gateway_and_the_stores() -> None:
    assert cost(row("b", OURS, 1, target=1.0, gateway=0.5, postgres=0.25, valkey=0.125)) == 1.875


def test_a_ratio_compares_the_costs_of_one_round_and_the_median_of_the_rounds_counts() -> None:
    # The machine is ten times as slow in the second round, so a ratio across the rounds would be wrong.
    costs = {1: (0.5, 1.0), 2: (7.0, 10.0), 3: (0.4, 1.0)}
    rows = [row("a", target, round_, target=value) for round_, pair in costs.items() for target, value in zip((OURS, FASTAPI), pair, strict=True)]
    [verdict] = verdicts(rows)
    assert verdict.ratios == [0.5, 0.7, 0.4]
    assert verdict.ratio == 0.5
    assert verdict.holds is True
    assert verdict.costs == {OURS: 0.5, FASTAPI: 1.0}


@pytest.mark.parametrize(("ours", "holds"), [(0.50, True), (0.51, False)])
def test_an_aim_compares_with_its_own_rival(ours: float, *, holds: bool) -> None:
    rows = [row("c", OURS, 1, target=ours), row("c", GO, 1, target=1.0), row("c", FASTAPI, 1, target=9.0)]
    assert verdicts(rows)[0].holds is holds


@pytest.mark.parametrize(("busy_ms", "holds"), [(30.0, True), (30.1, False)])
def test_the_p99_beside_logins_compares_with_our_own_idle_p99_not_with_a_rival(busy_ms: float, *, holds: bool) -> None:
    rows = [row("a", OURS, 1, p99_ms=10.0), row("h", OURS, 1, p99_ms=busy_ms), row("h", GO, 1, p99_ms=400.0)]
    verdict = verdicts(rows)[1]
    assert verdict.holds is holds
    assert verdict.costs == {OURS: busy_ms, GO: 400.0}


def test_without_its_rival_an_aim_is_open() -> None:
    [verdict] = verdicts([row("a", OURS, 1), row("a", GO, 1)])
    assert verdict.ratio is None
    assert verdict.holds is None


def test_the_table_has_a_line_for_each_scenario_and_shows_errors_and_missed_aims() -> None:
    rows = [row(scenario, target, 1, target=1.0, gateway=0.5) for scenario in SCENARIOS for target in (OURS, FASTAPI, GO)]
    rows[0]["errors"] = 3
    lines = table(rows).splitlines()
    assert lines[2] == "| a GET one task, hot | 1.50 | 1.50 | 1.50 | 1.00 (1.00-1.00) | 0.65 of FastAPI | **no** | 3 |"
    assert [line[2] for line in lines[2:10]] == list(AIMS)
    assert "| ours by process | services | gateway |" in lines
    # The CPU of the scenario with logins contains the logins.
    assert not [line for line in lines[11:] if re.match(r"\| h ", line)]
