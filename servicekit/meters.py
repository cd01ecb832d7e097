"""Counters and histograms that a call changes by a plain addition. Prometheus reads them at a scrape.

prometheus_client takes a lock for every change, which together costs a call more than authentication. These are changed and read on the event loop
only, so they need no lock. What they export is the same. For what changes less often than once per call, use prometheus_client.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Final, Generic, TypeVar

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

M = TypeVar("M")
_INFINITY: Final = float("inf")


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self) -> None:
        """Adds one."""
        self.value += 1.0


class Histogram:
    """Counts values by the smallest of `bounds` that is not below them. `bounds` ascend; the last one is infinity."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * len(bounds)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Counts a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class _Family(Collector, Generic[M]):
    """The series of one metric, by the values of their labels."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], registry: CollectorRegistry, new: Callable[[], M]) -> None:
        """Raises ValueError if the registry has a metric with that name."""
        self._name = name
        self._documentation = documentation
        self._label_names = tuple(labels)
        self._new = new
        self._series: dict[tuple[str, ...], M] = {}
        registry.register(self)

    def labels(self, *values: str) -> M:
        """Returns the series with these values of the labels. It exists from now on, at zero."""
        if len(values) != len(self._label_names):
            raise ValueError(f"{self._name} has the labels {self._label_names}")
        if values not in self._series:
            self._series[values] = self._new()
        return self._series[values]

    def describe(self) -> Iterator[Metric]:
        """Returns what `collect` returns; the registry asks for it to find two metrics with one name."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """Returns the metric with its series."""
        raise NotImplementedError


class Counters(_Family[Counter]):
    """A Prometheus counter."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        super().__init__(name, documentation, labels, registry, Counter)

    def collect(self) -> Iterator[Metric]:
        """Returns the metric with its series."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._label_names)
        for values, counter in self._series.items():
            family.add_metric(values, counter.value)
        yield family


class Histograms(_Family[Histogram]):
    """A Prometheus histogram with the buckets `bounds`, and one more for all larger values."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], registry: CollectorRegistry, *, bounds: Sequence[float]) -> None:
        every = (*bounds, _INFINITY)
        super().__init__(name, documentation, labels, registry, lambda: Histogram(every))

    def collect(self) -> Iterator[Metric]:
        """Returns the metric with its series."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._label_names)
        for values, histogram in self._series.items():
            counts = zip(map(floatToGoString, histogram.bounds), map(float, accumulate(histogram.counts)), strict=True)
            family.add_metric(values, buckets=[(bound, count) for bound, count in counts], sum_value=histogram.sum)
        yield family
