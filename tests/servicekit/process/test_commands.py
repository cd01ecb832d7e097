"""What a service's command line does before the service is imported."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, runpy, sys
from servicekit.process import commands
parse, imported = commands._parser, set()
commands._parser = lambda *args: (imported.update(sys.modules), parse(*args))[1]
try:
    runpy.run_module("{service}", run_name="__main__")
except SystemExit as error:
    print("grpc" in imported, os.environ.get("GRPC_EXPERIMENTS"), error.code)
"""


@pytest.mark.parametrize("service", ["auth_service", "task_service"])
@pytest.mark.parametrize(("given", "expected"), [({}, "-event_engine_listener"), ({"GRPC_EXPERIMENTS": ""}, ""), ({"GRPC_EXPERIMENTS": "x"}, "x")])
def test_grpc_is_set_before_it_is_imported(service: str, given: dict[str, str], expected: str) -> None:
    """grpc's core reads the variable only at its import. Without settings, the service ends after that."""
    ran = subprocess.run((sys.executable, "-c", PROGRAM.format(service=service), "run"), env=given, capture_output=True, text=True, check=False)
    assert ran.stdout == f"False {expected} 2\n", ran.stderr
