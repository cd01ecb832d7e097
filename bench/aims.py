"""The aims of `bench.rivals`: the cost of a scenario as a share of a rival's cost, and the table that says which aims hold.

The rows are those of the rivals' benchmark: one for each scenario, round and target, with the CPU seconds of 1000 calls by group of processes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

OURS: Final = "ours"
GO: Final = "seed_go"
FASTAPI: Final = "fastapi:2"

Row = Mapping[str, Any]

SCENARIOS: Final[Mapping[str, str]] = {
    "a": "GET one task, hot",
    "b": "GET a random task",
    "c": "list, first page of 20",
    "d": "list, the last page by `skip`",
    "e": "create",
    "f": "update a random task",
    "g": "mixed: 80 % b, 10 % c, 5 % e, 5 % f",
    "h": "GET hot during 16 logins, p99 ms",
}
# The scenario whose p99 is compared, and the scenario with the same calls on an otherwise idle system.
BUSY, IDLE = "h", "a"


@dataclass(frozen=True, slots=True)
class Aim:
    """The largest share of the rival's CPU per call; for the scenario BUSY, of the system's own p99 in the scenario IDLE."""

    rival: str
    at_most: float


AIMS: Final[Mapping[str, Aim]] = {
    "a": Aim(FASTAPI, 0.65),
    "b": Aim(FASTAPI, 0.6),
    "c": Aim(GO, 0.5),
    "d": Aim(GO, 0.4),
    "e": Aim(FASTAPI, 1.3),
    "f": Aim(FASTAPI, 1.3),
    "g": Aim(GO, 0.65),
    "h": Aim(OURS, 3.0),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one scenario. `costs` are medians by target: CPU ms per call, or the p99 in ms for BUSY. None means not measured.

    `ratios` has the ratio of each round, `ratio` their median: the two costs of one ratio are measured within minutes, so that a machine that becomes
    slower during the run affects both.
    """

    scenario: str
    costs: Mapping[str, float]
    ratios: Sequence[float]
    errors: int

    @property
    def ratio(self) -> float | None:
        """The median of the rounds."""
        return median(self.ratios) if self.ratios else None

    @property
    def holds(self) -> bool | None:
        """Whether the ratio keeps the aim."""
        return None if self.ratio is None else self.ratio <= AIMS[self.scenario].at_most


def cost(row: Row) -> float:
    """Returns the CPU ms per call of all processes that serve, or the p99 in ms for BUSY, whose CPU contains that of the logins."""
    if row["scenario"] == BUSY:
        return float(row["p99_ms"])
    # Seconds of 1000 calls are milliseconds of one.
    return float(sum(row["cpu_s_per_1000"].values()))


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Returns the result of each scenario that has rows."""
    return [_verdict(scenario, rows) for scenario in SCENARIOS if any(row["scenario"] == scenario for row in rows)]


def _verdict(scenario: str, rows: Sequence[Row]) -> Verdict:
    mine = [row for row in rows if row["scenario"] == scenario]
    targets = dict.fromkeys(row["target"] for row in mine)
    costs = {target: median(cost(row) for row in mine if row["target"] == target) for target in targets}
    ours = {row["round"]: cost(row) for row in mine if row["target"] == OURS}
    base = _base(scenario, rows)
    ratios = [ours[round_] / base[round_] for round_ in sorted(ours.keys() & base.keys()) if base[round_]]
    return Verdict(scenario, costs, ratios, sum(row["errors"] for row in mine))


def _base(scenario: str, rows: Sequence[Row]) -> Mapping[int, float]:
    """Returns what the aim compares with, by round."""
    if scenario == BUSY:
        return {row["round"]: float(row["p99_ms"]) for row in rows if row["scenario"] == IDLE and row["target"] == OURS}
    return {row["round"]: cost(row) for row in rows if row["scenario"] == scenario and row["target"] == AIMS[scenario].rival}


def table(rows: Sequence[Row]) -> str:
    """Returns the costs, ratios and aims as a Markdown table, and a second table with the parts of our cost."""
    lines = [
        "| CPU ms per call, stores included | ours | FastAPI, 2 workers | Go | ratio (lowest-highest) | aim: at most | holds | errors |",
        "| --- | ---: | ---: | ---: | ---: | --- | --- | ---: |",
    ]
    lines += [_line(verdict) for verdict in verdicts(rows)]
    return "\n".join([*lines, "", *_parts(rows)])


def _line(verdict: Verdict) -> str:
    aim = AIMS[verdict.scenario]
    of = {GO: "of Go", FASTAPI: "of FastAPI", OURS: "times idle"}[aim.rival]
    ratio = "-" if verdict.ratio is None else f"{verdict.ratio:.2f} ({min(verdict.ratios):.2f}-{max(verdict.ratios):.2f})"
    holds = {None: "-", True: "yes", False: "**no**"}[verdict.holds]
    costs = " | ".join(_number(verdict.costs.get(target)) for target in (OURS, FASTAPI, GO))
    return f"| {verdict.scenario} {SCENARIOS[verdict.scenario]} | {costs} | {ratio} | {aim.at_most:g} {of} | {holds} | {verdict.errors} |"


def _parts(rows: Sequence[Row]) -> list[str]:
    """Returns the medians of our CPU ms per call by group of processes. In BUSY they contain the logins, so that row is left out."""
    ours = [row for row in rows if row["target"] == OURS and row["scenario"] != BUSY]
    if not ours:
        return []
    groups = list(ours[0]["cpu_s_per_1000"])
    lines = [
        f"| ours by process | {' | '.join('services' if group == 'target' else group for group in groups)} |",
        f"| --- |{' ---: |' * len(groups)}",
    ]
    for scenario in dict.fromkeys(row["scenario"] for row in ours):
        found = [row["cpu_s_per_1000"] for row in ours if row["scenario"] == scenario]
        lines.append(f"| {scenario} | {' | '.join(_number(median(cpu[group] for cpu in found)) for group in groups)} |")
    return lines


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 10 else f"{value:.3f}" if value < 1 else f"{value:.2f}"
