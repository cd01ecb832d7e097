"""Stacks of real Postgres and Valkey with stand-ins for the services and the gateway, in this process or in a separate supervisor process."""

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
    """Returns a function that starts a supervisor: by default of an ephemeral stack without faults. Kills supervisors that a failed test leaves."""
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
    """The configuration of a stack in this process, with its data in the test's temporary directory."""
    return StackConfig(data_dir=tmp_path / "data", commands=COMMANDS)
