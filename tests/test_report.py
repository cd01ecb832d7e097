"""The additions to pytest's report: progress, the systems and logs of a failed test, missing tools, and the reason for each test of a slower tier."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.rules import ROOT

CONFTEST = """
from tests.support import tiers

def pytest_collection_modifyitems(items):
    tiers.require_reasons(items)
"""
# The failed test has a system whose log has an error.
TESTS = """
from types import SimpleNamespace
import pytest
from tests.support import systems, tools

@pytest.fixture
def system(tmp_path):
    (tmp_path / "task-1.log").write_text('{"level":"info"}\\n{"level":"error","event":"what went wrong"}\\n')
    state = SimpleNamespace(url="http://localhost:1234", database_url="postgresql://role:password@127.0.0.1:5678/taskmanager")
    stack = SimpleNamespace(state=state, log_dir=tmp_path, _data=object())
    systems._RUNNING.append(stack)
    yield stack
    systems._RUNNING.remove(stack)

def test_good():
    pass

def test_bad(system):
    assert not system

def test_without_its_tool():
    tools.required("no-such-tool", "it does not exist")

@pytest.mark.parametrize("number", range(2))
def test_without_an_exempt_tool(number):
    tools.missing("pgbouncer>=1.21", "Ubuntu has it")
"""
EXEMPT = {"EXEMPT_TOOLS": "another pgbouncer>=1.21"}
BY_WORKERS = ("-p", "xdist", "--numprocesses", "1")


def _run(folder: Path, tests: str, *arguments: str, conftest: str = CONFTEST, **variables: str) -> str:
    """Returns what pytest prints when it runs these tests with the additions. By default it runs neither in CI nor beside another run."""
    (folder / "conftest.py").write_text(conftest)
    (folder / "test_one.py").write_text(tests)
    command = (sys.executable, "-m", "pytest", "-c", os.devnull, "-p", "no:cacheprovider", "-p", "tests.support.report", *arguments, "test_one.py")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_") and name not in {"CI", "KEEP_RESULTS"}}
    environment = inherited | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **EXEMPT, **variables}
    run = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return run.stdout


@pytest.fixture(scope="module", params=[(), BY_WORKERS], ids=["one process", "workers"])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which TESTS ran, and what pytest printed."""
    folder = tmp_path_factory.mktemp("ran")
    return folder, _run(folder, TESTS, *request.param)


def test_a_failed_test_names_its_system_and_keeps_its_logs(ran: tuple[Path, str]) -> None:
    folder, said = ran
    assert "system 0: http://localhost:1234, database 127.0.0.1:5678/taskmanager" in said
    assert 'task-1.log: {"level":"error","event":"what went wrong"}' in said
    assert '{"level":"info"}' not in said
    (kept,) = (folder / "test-results").rglob("task-1.log")
    assert "what went wrong" in kept.read_text()


def test_the_end_counts_the_tests_and_names_the_missing_tools(ran: tuple[Path, str]) -> None:
    assert "1 failed, 1 passed, 3 skipped" in ran[1]
    assert "Skipped because tools are missing: no-such-tool (1 tests)." in ran[1]
    assert "Skipped because EXEMPT_TOOLS names their tools: pgbouncer>=1.21 (2 tests)." in ran[1]


def test_in_ci_a_missing_tool_fails_its_test_unless_it_is_exempt(tmp_path: Path) -> None:
    said = _run(tmp_path, TESTS, CI="true")
    assert "FAILED test_one.py::test_without_its_tool - Failed: no-such-tool is not installed: it does not exist" in said
    assert "2 failed, 1 passed, 2 skipped" in said
    assert "tools are missing" not in said
    assert "4 failed, 1 passed" in _run(tmp_path, TESTS, CI="true", EXEMPT_TOOLS="pgbouncer")


def test_only_the_module_of_the_tools_decides_what_a_missing_one_means() -> None:
    deciding = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py") if re.search(r"environ\W+(get\W+)?CI\b", path.read_text())}
    assert deciding == {"tests/support/tools.py"}


def test_workers_show_their_progress_and_each_failure_at_once(tmp_path: Path) -> None:
    said = _run(tmp_path, TESTS, *BY_WORKERS)
    assert "FAILED test_one.py::test_bad (call, gw0)" in said
    assert "100 %  test_one.py: 1 passed, 1 failed, 3 skipped in" in said


def test_the_logs_of_an_earlier_run_are_removed_but_not_those_of_one_at_the_same_time(tmp_path: Path) -> None:
    (tmp_path / "test-results" / "earlier").mkdir(parents=True)
    assert "1 passed" in _run(tmp_path, "def test_good(): pass", KEEP_RESULTS="1")
    assert (tmp_path / "test-results" / "earlier").exists()
    assert "1 passed" in _run(tmp_path, "def test_good(): pass")
    assert not (tmp_path / "test-results").exists()


def test_a_failure_after_the_end_of_its_system_is_reported(tmp_path: Path) -> None:
    ended = TESTS.replace("    yield stack\n", "    yield None\n    stack.log_dir = tmp_path / 'removed'\n    raise ValueError\n")
    said = _run(tmp_path, ended)
    assert "INTERNALERROR" not in said
    assert "2 passed, 3 skipped, 1 error" in said


@pytest.mark.parametrize("tier", ["slow", "outage", "alone"])
def test_a_test_of_a_slower_tier_needs_its_reason(tmp_path: Path, tier: str) -> None:
    said = _run(tmp_path, f"import pytest\n@pytest.mark.{tier}\ndef test_it(): pass\n")
    assert f"test_one.py::test_it needs the reason why it is {tier}" in said


def test_a_test_that_hangs_fails_at_its_folders_limit_and_the_next_one_runs(tmp_path: Path) -> None:
    limit = "    tiers.may_take(items, pathlib.Path(__file__).parent, 1)\n"
    hangs = "import time\ndef test_hangs(): time.sleep(60)\ndef test_good(): pass\n"
    said = _run(tmp_path, hangs, "-p", "pytest_timeout", "--timeout", "30", conftest="import pathlib" + CONFTEST + limit)
    assert "test_one.py::test_hangs - Failed: Timeout (>1.0s) from pytest-timeout" in said
    assert "1 failed, 1 passed" in said
