"""A supervisor of stand-ins in a process of its own, as the tests see it from outside."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).with_name("programs")
COMMANDS = {
    "auth_service": (sys.executable, str(PROGRAMS / "standin.py"), "auth"),
    "task_service": (sys.executable, str(PROGRAMS / "standin.py"), "task"),
    "gateway": (sys.executable, str(PROGRAMS / "standin.py"), "gateway", "run"),
}
# Far longer than any of these steps takes, so that only a hang reaches the limit.
LIMIT_SECONDS = 30.0


def alive(pid: int) -> bool:
    """Returns whether a process runs. A zombie does not count."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def until(condition: Callable[[], object], what: str) -> None:
    """Waits until the condition is true. Fails after LIMIT_SECONDS."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come to pass"
        time.sleep(0.02)


@dataclass
class Supervisor:
    """A supervisor in a process of its own."""

    running: "subprocess.Popen[str]"
    state_file: Path
    journal: Path

    def ready(self) -> dict[str, Any]:
        """Waits until the stack is ready and returns its state."""
        until(lambda: self.state_file.exists() or self.running.poll() is not None, "ready")
        assert self.running.poll() is None, self.running.communicate()
        state: dict[str, Any] = json.loads(self.state_file.read_text())
        return state

    def ended(self) -> tuple[int, str, str]:
        """Waits until the supervisor ends. Returns its exit status, standard output and standard error."""
        output, messages = self.running.communicate(timeout=LIMIT_SECONDS)
        return self.running.returncode, output, messages


def pids(state: dict[str, Any]) -> list[int]:
    """Returns the pids of every process of a stack, including PostgreSQL's child processes."""
    found = [process["pid"] for process in state["processes"].values()]
    children = Path(f"/proc/{state['processes']['postgres']['pid']}/task")
    for thread in children.iterdir():
        found += map(int, (thread / "children").read_text().split())
    return found


def all_gone(found: list[int]) -> bool:
    """Returns whether none of the processes runs."""
    return not any(alive(pid) for pid in found)
