"""A process that does not trace has no OpenTelemetry, although it is installed."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from servicekit.process.untraced import leave_out_opentelemetry
leave_out_opentelemetry({endpoint!r})
import {service}.app
print(len([name for name in sys.modules if name.startswith("opentelemetry.")]))
"""


@pytest.mark.parametrize("service", ["auth_service", "task_service"])
def test_a_process_without_an_endpoint_has_no_opentelemetry(service: str) -> None:
    assert _modules(service, None) == 0


def test_a_process_with_an_endpoint_has_it() -> None:
    assert _modules("task_service", "http://localhost:4317") > 0


def _modules(service: str, endpoint: str | None) -> int:
    program = PROGRAM.format(service=service, endpoint=endpoint)
    return int(subprocess.run((sys.executable, "-c", program), capture_output=True, check=True, text=True).stdout)
