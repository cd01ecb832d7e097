"""The comparison of two checkouts: the ratios of successive rounds, and the row of the table."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import compare, side
from bench.calls import Calls
from bench.jobs import Round
from bench.rows import Row, Target, Turn
from bench.users import Users
from tests.architecture.rules import ROOT


def turn(*rounds: dict[str, float]) -> Turn:
    """A turn whose rounds have ten calls and this CPU time, in µs per call."""
    done = [Round(1.0, {name: us * 10 / 1e6 for name, us in used.items()} | {"client": 1.0}, [1] * 10, 0, "") for used in rounds]
    return Turn(Target(1, dict.fromkeys(rounds[0], 1)), Calls("GetTask", ()), Users("", []), done)


def test_a_ratio_compares_successive_rounds_and_the_client_is_not_part_of_the_cost() -> None:
    # The machine is ten times as slow in the second round.
    old = turn({"service": 100, "valkey": 20}, {"service": 1000, "valkey": 200}, {"service": 100, "valkey": 0})
    new = turn({"service": 50, "valkey": 10}, {"service": 800, "valkey": 160}, {"service": 60, "valkey": 20})
    found = compare.figures(Row("gRPC", "grpc", old, new))
    assert found["old_us"] == {"service": 100, "valkey": 20, "all": 120}
    assert found["ratio_by_round"]["service"] == [0.5, 0.8, 0.6]
    # In the third round the old Valkey used less time than /proc can show.
    assert found["ratio_by_round"]["valkey"] == [0.5, 0.8, None]
    assert found["ratio"] == {"service": 0.6, "valkey": None, "all": 0.8}


def test_the_table_has_three_lines_for_each_row() -> None:
    row = Row("gRPC", "grpc", turn({"service": 100, "valkey": 20}), turn({"service": 50, "valkey": 10}))
    results = {
        "settings": {"callers": 1, "rounds": 1, "seconds": 1},
        "versions": {"old": "abc", "new": "def-dirty"},
        "rows": [{"way": row.way, "calls": row.name, **compare.figures(row)}],
    }
    head, _, names, *lines = compare.table(results).splitlines()
    assert head == "old abc, new def-dirty; 1 callers, 1 rounds of 1 s each"
    assert names.split()[-6:] == ["service", "gateway", "postgres", "valkey", "all", "lowest-highest"]
    assert [line.split() for line in lines] == [
        ["gRPC", "GetTask", "old", "100", "-", "-", "20", "120"],
        ["new", "50", "-", "-", "10", "60"],
        ["ratio", "0.50", "-", "-", "0.50", "0.50", "0.50-0.50"],
    ]


def test_a_side_refuses_an_interpreter_of_another_checkout(tmp_path: Path) -> None:
    command = (sys.executable, "-P", side.__file__, json.dumps({}))
    refused = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert refused.returncode == 1
    assert f"is installed for {ROOT}, not for {tmp_path}" in refused.stderr


async def test_a_checkout_without_a_venv_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(compare.SideFailed, match=r"\.venv/bin/python does not exist: run `make"):
        async with compare.running(tmp_path):
            pass
