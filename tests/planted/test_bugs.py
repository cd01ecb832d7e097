"""Each planted bug matches the current source, docs/testing.md lists it, and the command can start a system with a bug."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.planted.bugs import BUGS, Bug

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_can_be_planted(bug: Bug) -> None:
    assert (ROOT / bug.file).read_text(encoding="utf-8").count(bug.old) == 1
    assert bug.old != bug.new
    assert all((ROOT / test.partition("::")[0]).is_file() for test in bug.tests if test.startswith("tests/"))


def test_the_names_are_told_apart() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_the_documentation_has_it(bug: Bug) -> None:
    assert f"| {bug.name} |" in (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")


@pytest.mark.slow("it starts a system in a copy of the source tree")
def test_the_command_finds_a_bug_of_a_running_system() -> None:
    command = (sys.executable, "-m", "tests.planted", "bytes of the log")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert (run.returncode, run.stdout[:7]) == (0, "found ("), run.stdout + run.stderr
