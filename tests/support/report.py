"""Additions to pytest's report: progress by file, the systems and logs of a failed test, and the missing tools."""

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.tools import EXEMPT

RESULTS: Final = Path("test-results")
# The reasons that tests.support.tools gives.
MISSING_TOOL: Final = re.compile(rf"(?P<tool>\S+) is not installed.*?(?P<exempt>\({EXEMPT} names it\))?$")
# The most useful lines of a log after a failure.
TROUBLE: Final = re.compile(r'"level": ?"(warning|error|critical)"|\b(ERROR|FATAL|PANIC|critical|Traceback)\b')
MAX_LINES: Final = 12
# The logs of more failures would fill the disk and would not help.
MAX_FAILURES_WITH_LOGS: Final = 20


def pytest_configure(config: pytest.Config) -> None:
    """Registers the additions for this run, and the marker of the tests that `make test` does not run."""
    config.addinivalue_line("markers", "slow: takes long, so that only `make test-slow` and `make test-all` run it")
    config.addinivalue_line("markers", "outage: as slow, and it breaks a running system, which its worker has for such tests")
    config.addinivalue_line("markers", "alone: as slow, and no other test may run meanwhile: it measures what other work on the machine can falsify")
    config.pluginmanager.register(Failures(config), "tests-failures")
    if not hasattr(config, "workerinput") and "KEEP_RESULTS" not in os.environ:
        # The logs of the previous run must not mix with those of this one. KEEP_RESULTS: another run at the same time has its logs there too.
        shutil.rmtree(RESULTS, ignore_errors=True)
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress(config), "tests-progress")


class Progress:
    """For runs with several workers: prints a line for each file after its last test, and a line for each failure immediately."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._left: Counter[str] = Counter()
        self._total = 0
        self._outcomes: dict[str, Counter[str]] = {}
        self._seconds: Counter[str] = Counter()

    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:  # noqa: ARG002 - the hook's signature
        """Counts the tests of each file. Every worker reports the same ones."""
        self._left = Counter(_file_of(nodeid) for nodeid in ids)
        self._total = len(ids)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Suppresses the dots that pytest prints for each test."""
        outcome = report.outcome
        if report.when == "call" or outcome != "passed":
            category = "error" if outcome == "failed" and report.when != "call" else outcome
            return None if hasattr(report, "wasxfail") else (category, "", "")
        return None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Records one phase of a test."""
        file = _file_of(report.nodeid)
        self._seconds[file] += report.duration
        outcomes = self._outcomes.setdefault(file, Counter())
        if report.when == "call" or report.outcome != "passed":
            outcomes[report.outcome] += 1
        if report.failed:
            self._write(f"FAILED {report.nodeid} ({report.when}, {_worker_of(report)})", red=True)
        if report.when == "teardown":
            self._left[file] -= 1
            if self._left[file] == 0:
                done = 100 - 100 * sum(self._left.values()) // self._total
                counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
                self._write(f"{done:3} %  {file}: {counts} in {self._seconds[file]:.1f} s ({_worker_of(report)})")

    def _write(self, line: str, **markup: bool) -> None:
        reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        reporter.ensure_newline()
        reporter.write_line(line, **markup)


class Failures:
    """Reports the systems that ran during a failed test and saves their logs. At the end it reports the missing tools."""

    def __init__(self, config: pytest.Config) -> None:
        self._worker: str = getattr(config, "workerinput", {}).get("workerid", "main")
        self._kept = 0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        """Adds a section to the report of a failed phase."""
        report: Any = yield
        if report.failed:
            lines = list(self._systems(item))
            if lines:
                report.sections.append((f"systems of worker {self._worker}", "\n".join(lines)))
        return report

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Prints a line about all tests that were skipped because a tool is missing, and one about those that EXEMPT_TOOLS excuses in CI."""
        reasons = [str(report.longrepr[-1]) for report in terminalreporter.stats.get("skipped", []) if isinstance(report.longrepr, tuple)]
        for exempt, why in ((False, "tools are missing"), (True, f"{EXEMPT} names their tools")):
            tools = Counter(found["tool"] for found in map(MISSING_TOOL.search, reasons) if found and bool(found["exempt"]) == exempt)
            if tools:
                named = ", ".join(f"{tool} ({count} tests)" for tool, count in tools.most_common())
                terminalreporter.write_line(f"Skipped because {why}: {named}. `-rs` shows how to install them.", yellow=True)

    def _systems(self, item: pytest.Item) -> Iterator[str]:
        from tests.support.systems import running  # noqa: PLC0415 - devstack is loaded by then, or there is no system

        for number, stack in enumerate(running()):
            yield f"system {number}: {stack.state.url or 'not ready'}, database {stack.state.database_url.rpartition('@')[2]}"
            if not stack.log_dir.is_dir():
                # The system failed while it stopped, and its folder is already removed.
                continue
            if self._kept < MAX_FAILURES_WITH_LOGS:
                kept = RESULTS / re.sub(r"\W+", "-", item.nodeid)[-150:] / f"{self._worker}-{number}"
                shutil.copytree(stack.log_dir, kept, dirs_exist_ok=True)
                yield f"  logs: {kept}"
            for log in sorted(stack.log_dir.glob("*.log")):
                yield from _trouble_in(log)
        self._kept += 1


def _trouble_in(log: Path) -> Iterator[str]:
    with log.open(errors="replace") as lines:
        found = [line.rstrip() for line in lines if TROUBLE.search(line)]
    for line in found[-MAX_LINES:]:
        yield f"  {log.name}: {line[:300]}"


def _file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def _worker_of(report: Any) -> str:
    return str(getattr(getattr(report, "node", None), "gateway", None) and report.node.gateway.id)
