"""Stacks of real Postgres and Valkey with stand-ins for the services and the gateway, in this process or in a supervisor of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devstack.config import StackConfig
from tests.devstack.supervisor import COMMANDS, PROGRAMS, Supervisor


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Supervisor]]:
    """Starts a supervisor; what it is not told is an ephemeral stack without faults. Ends those that a failed test leaves."""
    started: list[Supervisor] = []

    def start(*, data_dir: Path | None = None, fault: str = "", program: tuple[str, ...] | None = None) -> Supervisor:
        number = len(started)
        state_file, journal = tmp_path / f"state-{number}.json", tmp_path / f"journal-{number}"
        orders = {
            "data_dir": data_dir and str(data_dir),
            "state_file": str(state_file),
            "commands": COMMANDS,
            "environment": {"STANDIN_FAULT": fault, "STANDIN_JOURNAL": str(journal)},
        }
        command = program or (sys.executable, str(PROGRAMS / "foreground.py"), json.dumps(orders))
        temporary = tmp_path / "tmp"
        temporary.mkdir(exist_ok=True)
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(temporary)})
        started.append(Supervisor(running, state_file, journal))
        return started[-1]

    yield start
    for supervisor in started:
        with supervisor.running as running:  # closes its pipes
            if running.poll() is None:
                running.kill()


@pytest.fixture
def config(tmp_path: Path) -> StackConfig:
    """A stack in this process, its data below the test's directory."""
    return StackConfig(data_dir=tmp_path / "data", commands=COMMANDS)
