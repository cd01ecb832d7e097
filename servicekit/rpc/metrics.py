"""Prometheus metrics with the names of grpc-ecosystem's go-grpc-prometheus, so that existing dashboards work."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

import grpc
from prometheus_client import CollectorRegistry, Gauge, disable_created_metrics
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from servicekit.meters import Counters, Histograms
from servicekit.rpc.method import Method

DISTRIBUTION: Final = "task-manager"
LABELS: Final = ("grpc_type", "grpc_service", "grpc_method")
BUCKETS_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


def registry() -> CollectorRegistry:
    """Returns a registry with the process's own metrics. Each server has its own registry; none exists at module level."""
    # Otherwise each counter would have a second series with the time of its creation, which no dashboard uses.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    metrics = CollectorRegistry()
    ProcessCollector(registry=metrics)
    PlatformCollector(registry=metrics)
    GCCollector(registry=metrics)
    Gauge("task_manager_build_info", "1, labeled with the running version.", ["version"], registry=metrics).labels(version(DISTRIBUTION)).set(1)
    return metrics


@dataclass(slots=True)
class UnderWay:
    """The number of running calls, or of running streams."""

    count: int = 0


class MethodMeter:
    """The metrics of one method. Its labels are bound once, because a look-up on every call would be most of the metrics' cost."""

    def __init__(self, metrics: "CallMetrics", method: Method) -> None:
        labels = ("server_stream" if method.streams else "unary", method.service, method.name)
        self.started = metrics.started_total.labels(*labels)
        self._handled = {code: metrics.handled_total.labels(*labels, _camel(code)) for code in grpc.StatusCode}
        self._seconds = metrics.handling_seconds.labels(*labels)
        # Only for streams: a unary call has one answer, so the counter of handled calls is enough.
        self._sent = metrics.sent_total.labels(*labels) if method.streams else None

    def handled(self, code: grpc.StatusCode, seconds: float) -> None:
        """Counts an ended call."""
        self._handled[code].inc()
        self._seconds.observe(seconds)

    def sent(self) -> None:
        """Counts a message of a stream that the transport has accepted."""
        if self._sent is not None:
            self._sent.inc()


class CallMetrics:
    """grpc_server_started_total, grpc_server_handled_total, grpc_server_handling_seconds, grpc_server_msg_sent_total, and what runs now."""

    def __init__(self, metrics: CollectorRegistry) -> None:
        self.started_total = Counters("grpc_server_started_total", "Started calls.", LABELS, metrics)
        self.handled_total = Counters("grpc_server_handled_total", "Ended calls, by status.", (*LABELS, "grpc_code"), metrics)
        self.handling_seconds = Histograms(
            "grpc_server_handling_seconds", "Time from the start of a call to its end.", LABELS, metrics, bounds=BUCKETS_SECONDS
        )
        self.sent_total = Counters("grpc_server_msg_sent_total", "Messages sent in streams.", LABELS, metrics)
        self.under_way, self.streams_under_way = UnderWay(), UnderWay()
        Gauge("grpc_server_calls_in_flight", "Running calls.", registry=metrics).set_function(lambda: self.under_way.count)
        Gauge("grpc_server_streams_in_flight", "Running streams.", registry=metrics).set_function(lambda: self.streams_under_way.count)
        self._most_calls = Gauge("grpc_server_calls_limit", "Maximum number of running calls.", registry=metrics)
        self._most_streams = Gauge("grpc_server_streams_limit", "Maximum number of running streams.", registry=metrics)

    def bound(self, calls: int, streams: int) -> None:
        """Exports the maximum numbers of running calls and streams."""
        self._most_calls.set(calls)
        self._most_streams.set(streams)

    def of(self, method: Method) -> MethodMeter:
        """Returns the meter of a method. Its series exist from now on, at zero."""
        return MethodMeter(self, method)


def _camel(code: grpc.StatusCode) -> str:
    """`NOT_FOUND` → `NotFound`, as go-grpc-prometheus writes it. `OK` stays `OK`."""
    return code.name if code is grpc.StatusCode.OK else code.name.title().replace("_", "")
