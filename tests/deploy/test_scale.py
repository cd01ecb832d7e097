"""docs/scale.md: its tables follow from the formulas and the measured costs in bench, which agree with the README's table."""

import re
from functools import cache

import pytest
import yaml

from bench.capacity import (
    AUTH_CONNECTIONS,
    CALLS_A_DAY,
    CHANGE_BYTES,
    CLIENTS,
    GATEWAY_CORES,
    KEPT_DAYS,
    LOGIN_SECONDS,
    SHARES,
    STREAMS,
    TASK_BYTES,
    TASK_CONNECTIONS,
    USED,
    WAL_BYTES,
    Need,
    connections,
    need,
)
from bench.scale import MEASURED, POOL_SIZE, System, measured, parts_used, quantile, simulate
from gateway.settings import GatewaySettings
from helm.chart import ROOT as CHART
from servicekit.process.settings import ServiceSettings
from task_service.settings import Settings as TaskSettings
from tests.deploy.workflows import ROOT

TEXT = (ROOT / "docs" / "scale.md").read_text()
# How far the README's table may differ before this document must be measured anew: benchmarks on shared cores vary.
TOLERANCE = 0.25
README_ROWS = {"list": "ListTasks (20)", "create": "CreateTask"}
# What the document says of the simulation.
USERS, SECONDS, SEED = 10_000_000, 10.0, 1
NEAR = 0.05
WITHIN_SECONDS = 0.05


def _rows(block: str) -> list[list[str]]:
    text = TEXT.partition(f"<!-- {block} -->")[2].partition(f"<!-- /{block} -->")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.strip().splitlines()[2:]]


def _number(cell: str) -> float:
    return float(re.sub(r"[ %]", "", cell))


def _said(pattern: str) -> list[float]:
    found = re.search(pattern, " ".join(TEXT.split()))
    assert found is not None, pattern
    return [_number(group) for group in found.groups()]


def test_the_inputs_are_those_of_the_simulation() -> None:
    shares, *parts = _rows("inputs")
    assert [_number(cell) / 100 for cell in shares[1:] if cell] == list(SHARES.values())
    costs = measured()
    for (_, *cells), part, mean in zip(parts, MEASURED, (costs.service, costs.gateway, costs.postgres, costs.valkey), strict=True):
        assert [_number(cell) for cell in cells] == [*MEASURED[part].values(), round(mean * 1e6)]


def test_the_inputs_are_what_was_measured() -> None:
    """The README has the same calls, measured at another time. Its GetTask is of tasks that the cache has, so it costs less."""
    found = re.findall(r"^\| ([\w (20)]+), (gRPC|REST) [\w ]+\|(?:[^|]+\|){3} ([\d ]+µs) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    readme = {(rpc, way): _number(cpu.removesuffix("µs")) for rpc, way, cpu in found}
    for kind, rpc in README_ROWS.items():
        assert MEASURED["service"][kind] == pytest.approx(readme[rpc, "gRPC"], rel=TOLERANCE), f"{rpc} was measured anew"
        both = MEASURED["service"][kind] + MEASURED["gateway"][kind]
        assert both == pytest.approx(readme[rpc, "REST"], rel=TOLERANCE), f"{rpc} was measured anew"
    assert MEASURED["service"]["get"] > readme["GetTask", "gRPC"]


def test_the_assumptions_are_the_programs() -> None:
    streams, kept, pool = (
        TaskSettings.model_fields[name].default for name in ("max_concurrent_streams", "change_retention_days", "database_pool_max_size")
    )
    assert (streams, kept, pool) == (STREAMS, KEPT_DAYS, POOL_SIZE)
    assert GatewaySettings().max_connections == CLIENTS
    for name, count in (("task-service", TASK_CONNECTIONS), ("auth-service", AUTH_CONNECTIONS)):
        text = (CHART / "charts" / name / "values.yaml").read_text()
        assert f"holds up to {count} connections to PostgreSQL with DATABASE_POOL_MAX_SIZE at 10" in text


def test_the_words_follow_from_the_inputs() -> None:
    costs = measured()
    calls, watches = _said(r"= \*\*([\d ]+) calls/s per pod\*\*, and ([\d ]+) watches")
    assert (calls, watches) == (int(USED / costs.service), USED * STREAMS)
    calls, clients = _said(r"= \*\*([\d ]+) calls/s per pod\*\*, and ([\d ]+) connections of clients")
    assert (calls, clients) == (int(USED * GATEWAY_CORES / costs.gateway), USED * CLIENTS)
    assert _said(r"([\d.]+) logins/s per pod") == [USED / LOGIN_SECONDS]
    assert _said(r"makes (\d+) calls a day") == [CALLS_A_DAY]
    assert _said(r"([\d ]+) bytes per task .*? and (\d+) bytes per change") == [TASK_BYTES, CHANGE_BYTES]
    assert _said(r"adds ([\d ]+) bytes to the write-ahead log") == [WAL_BYTES]
    assert _said(r"one is full at ([\d ]+) calls/s") == [pytest.approx(USED / costs.valkey, rel=0.01)]
    assert _said(r"(\d+) cores are used to 60 % at ([\d ]+) calls/s")[1] == pytest.approx(32 * USED / costs.postgres, rel=0.01)


def test_the_table_follows_from_the_inputs() -> None:
    for row in _rows("capacity"):
        users, *said = (_number(cell) for cell in row)
        wanted = need(int(users), measured())
        assert said == [*_exact(wanted), *_rounded(wanted)]


def _exact(wanted: Need) -> list[float]:
    return [
        *(round(wanted.calls), wanted.watches, wanted.task_pods, wanted.gateway_pods, wanted.auth_pods, wanted.postgres_cores),
        *(round(wanted.valkey_cores, 2), wanted.connections, wanted.while_rolling, wanted.sessions),
    ]


def _rounded(wanted: Need) -> list[float]:
    return [round(wanted.disk_bytes / 1e9), round(wanted.wal_bytes / 1e6, 2)]


def test_a_hundred_pods_need_what_is_said() -> None:
    values = yaml.safe_load((CHART / "charts" / "postgresql" / "values.yaml").read_text())
    assert f"(`postgresql.maxConnections`, {values['maxConnections']}," in TEXT
    rolling = connections(100 + 2 * 25, 10 + 2 * 3)
    assert f"`DATABASE_POOL_MAX_SIZE` at 10 | {connections(100, 10):,} | {rolling:,} |".replace(",", " ") in TEXT
    # Half the pool: five connections fewer for each pod.
    assert f"`DATABASE_POOL_MAX_SIZE=5` | {connections(100, 10) - 5 * 110} | {rolling - 5 * 166:,} |".replace(",", " ") in TEXT
    assert ServiceSettings.model_fields["database_pool_max_size"].default == 2 * 5
    assert f"| {need(USERS, measured()).sessions} | {need(USERS, measured()).sessions} |" in TEXT


@cache
def _simulated(lost_zones: int) -> System:
    wanted = need(USERS, measured())
    system = System.of(wanted, lost_zones)
    simulate(system, wanted.calls, SECONDS, SEED)
    return system


def test_the_simulation_agrees_with_the_arithmetic() -> None:
    """The seed makes it repeatable, so the document has its exact figures."""
    whole, less = (parts_used(need(USERS, measured()), _simulated(lost), measured(), SECONDS) for lost in (0, 1))
    for name, arithmetic, simulated, without in _rows("simulation"):
        assert [f"{value:.0%}" for value in (*whole[name], less[name][1])] == [arithmetic, simulated, without]
        assert whole[name][0] == pytest.approx(whole[name][1], abs=NEAR)
    for lost in (0, 1):
        assert quantile(_simulated(lost).latencies, 0.99) < WITHIN_SECONDS


def test_the_simulation_shows_a_part_that_is_too_small() -> None:
    wanted = need(USERS, measured())
    system = System.of(wanted)
    narrow = System.of(wanted)
    narrow.sessions = type(narrow.sessions)(wanted.sessions // 2)
    for each in (system, narrow):
        simulate(each, wanted.calls, 2.0, SEED)
    assert quantile(narrow.latencies, 0.99) > 5 * quantile(system.latencies, 0.99)
