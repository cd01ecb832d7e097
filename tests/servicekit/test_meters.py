"""What the meters export is what prometheus_client would export."""

from typing import Any

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from servicekit.meters import Counters, Histograms

BOUNDS = (0.001, 0.25, 1.0, 10.0)
VALUES = (0.0, 0.001, 0.0011, 0.25, 0.9, 1.0, 10.0, 10.1, 1e9)


@pytest.fixture(autouse=True)
def _without_times_of_creation() -> Any:
    prometheus_client.disable_created_metrics()
    yield
    prometheus_client.enable_created_metrics()


def test_a_counter_exports_what_prometheus_client_exports() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = Counters("calls_total", "Calls.", ("method", "code"), ours)
    other = prometheus_client.Counter("calls_total", "Calls.", ("method", "code"), registry=theirs)
    for labels, times in ((("Get", "OK"), 3), (("Get", 'a "quoted"\nvalue'), 1), (("Put", "OK"), 0)):
        made, expected = mine.labels(*labels), other.labels(*labels)
        for _ in range(times):
            made.inc()
            expected.inc()
    assert generate_latest(ours) == generate_latest(theirs)


@pytest.mark.parametrize("labels", [(), ("method",)])
def test_a_histogram_exports_what_prometheus_client_exports(labels: tuple[str, ...]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    made = Histograms("seconds", "Time.", labels, ours, bounds=BOUNDS).labels(*labels)
    other = prometheus_client.Histogram("seconds", "Time.", labels, registry=theirs, buckets=BOUNDS)
    expected = other.labels(*labels) if labels else other
    assert generate_latest(ours) == generate_latest(theirs)
    for value in VALUES:
        made.observe(value)
        expected.observe(value)
    assert generate_latest(ours) == generate_latest(theirs)


def test_the_same_labels_are_the_same_series() -> None:
    counters = Counters("calls_total", "Calls.", ("method",), CollectorRegistry())
    counters.labels("Get").inc()
    assert counters.labels("Get").value == 1
    assert counters.labels("Put").value == 0


def test_labels_must_be_complete() -> None:
    with pytest.raises(ValueError, match="has the labels"):
        Counters("calls_total", "Calls.", ("method",), CollectorRegistry()).labels()


def test_a_name_exists_once_in_a_registry() -> None:
    registry = CollectorRegistry()
    Counters("calls_total", "Calls.", (), registry)
    with pytest.raises(ValueError, match="Duplicated"):
        Counters("calls_total", "Calls.", (), registry)
