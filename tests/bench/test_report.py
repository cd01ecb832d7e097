"""The tables of `python -m bench`, and the percentiles in them."""

from typing import Any

import pytest

from bench import report
from bench.calls import Calls
from bench.figures import percentile, summary
from bench.jobs import Round
from bench.measure import Settings
from bench.rows import Row, Target, Turn
from bench.users import Users

MAX_COLUMNS = 110


def turn(latencies_us: list[int], *, unanswered: int = 0, **cpu_us: float) -> Turn:
    """A turn of one round of a second, with CPU times in µs per call."""
    used = {name: us * len(latencies_us) / 1e6 for name, us in cpu_us.items()}
    return Turn(Target(1, {}), Calls("f: UpdateTask, random task", ()), Users("", []), [Round(1.0, used, latencies_us, 0, "", unanswered)])


def results(**measured: Any) -> dict[str, Any]:
    memory = {"at_rest": {"task-1": 100 * 2**20}, "after": {"task-1": 120 * 2**20}}
    nothing = {"rows": [], "open_loop": [], "memory_bytes": memory, "beside_logins": None, "batches": None, "idle_watches": None}
    return report.head(Settings()) | nothing | measured


ROW = Row(
    "REST, through the gateway",
    "http",
    turn([1000] * 4000, service=200, gateway=100, client=50),
    turn([9999] * 2000, service=400, gateway=200, postgres=321, valkey=54, client=51),
)


def test_the_table_shows_the_cpu_of_each_process_and_the_share_of_the_floor() -> None:
    lines = report.table(results(rows=[report.figures_of(ROW)])).splitlines()
    header, _, ours, floor = lines[5:9]
    assert header.split() == ["calls/s", "±", "p50", "ms", "p99", "ms", "service", "gateway", "postgres", "valkey", "client", "calls", "CPU"]
    assert ours.split("task", 1)[1].split() == ["2000", "0%", "10.0", "10.0", "400", "200", "321", "54", "51", "0.50", "0.50"]
    assert floor.split() == ["floor", "4000", "0%", "1.0", "1.0", "200", "100", "-", "-", "50"]
    assert len(header) == len(ours) <= MAX_COLUMNS
    assert "Resident memory in MiB, at rest and after the load: task-1 100 and 120." in lines


def test_the_table_of_an_open_loop_shows_the_rate_and_the_unanswered_calls() -> None:
    stalled = Row("gRPC", "grpc", ROW.base, turn([1000] * 998 + [5_000_000] * 2, unanswered=2, service=1, client=1))
    lines = report.table(results(open_loop=[{"rate": 1000.0, "rows": [report.figures_of(stalled)]}])).splitlines()
    assert lines[6] == "open loop, 1000 calls per second"
    assert lines[8].split("task", 1)[1].split() == ["998", "1.0", "1.0", "5000.0", "2", "1", "-", "-", "-", "1"]


@pytest.mark.parametrize(("percent", "ms"), [(50, 5.0), (99, 9.9), (99.9, 9.99), (100, 9.99)])
def test_percentiles_are_in_milliseconds(percent: float, ms: float) -> None:
    assert percentile([us * 10 for us in range(1000)], percent) == ms


def test_unanswered_calls_count_for_the_percentiles_but_not_for_the_rate() -> None:
    found = summary(turn([1000] * 98 + [5_000_000] * 2, unanswered=2, client=1).rounds)
    assert found["calls_per_second"] == 98
    assert found["p99_ms"] == 5000
