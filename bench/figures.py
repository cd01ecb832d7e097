"""Computes figures from rounds: medians, percentiles, spreads and ratios."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from bench.jobs import Round


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """Returns the medians of the rounds and the percentiles of all their calls."""
    rates = [(len(r.latencies) - r.unanswered) / r.seconds for r in rounds]
    latencies = sorted(latency for r in rounds for latency in r.latencies)
    names = rounds[0].cpu_seconds
    costs = {name: [r.cpu_seconds[name] / len(r.latencies) * 1e6 for r in rounds] for name in names}
    return {
        "calls_per_second": round(median(rates), 1),
        "spread": spread(rates),
        "p50_ms": percentile(latencies, 50),
        "p99_ms": percentile(latencies, 99),
        "p99_9_ms": percentile(latencies, 99.9),
        "cpu_ms_per_1000_calls": {name: round(median(values), 1) for name, values in costs.items()},
        "cpu_spread": {name: spread(values) for name, values in costs.items()},
        "client_cores": round(median(r.cpu_seconds["client"] / r.seconds for r in rounds), 2),
        "calls": len(latencies),
        "unanswered": sum(r.unanswered for r in rounds),
        # Other load on the machine can only increase these figures, so the smallest value of each is the most accurate.
        "cpu_ms_per_1000_calls_by_round": {name: [round(value, 1) for value in values] for name, values in costs.items()},
        "calls_per_second_by_round": [round(rate, 1) for rate in rates],
    }


def spread(values: Sequence[float]) -> float:
    """Returns half of the range, as a share of the median."""
    middle = median(values)
    return round((max(values) - min(values)) / 2 / middle, 3) if middle else 0.0


def percentile(ordered: Sequence[int], percent: float) -> float:
    """Returns a percentile of ordered latencies in µs, in ms."""
    return round(ordered[min(len(ordered) - 1, math.floor(len(ordered) * percent / 100))] / 1000, 2)


def ratio(value: float, of: float) -> float | None:
    """Returns value / of, and None if `of` is 0."""
    return round(value / of, 2) if of else None


def cost(found: Mapping[str, Any]) -> float:
    """Returns the CPU of service and gateway from what `summary` returns."""
    cpu: Mapping[str, float] = found["cpu_ms_per_1000_calls"]
    return cpu["service"] + cpu.get("gateway", 0.0)
