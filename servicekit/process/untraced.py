"""Keeps OpenTelemetry out of a process that does not trace. redis-py would import its SDK, which takes 5 MiB and a tenth of a second."""

import sys


def leave_out_opentelemetry(otlp_endpoint: str | None) -> None:
    """Without an endpoint, makes every later import of OpenTelemetry raise ModuleNotFoundError, as if it were not installed."""
    if otlp_endpoint is None:
        sys.modules["opentelemetry"] = None  # type: ignore[assignment]  # what Python defines for a module that must not be imported
