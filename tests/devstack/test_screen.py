"""What a person sees in the terminal: the parts as they come up, and the logs."""

import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from devstack import cli
from devstack.errors import UsageProblem
from devstack.follow import follow
from devstack.screen import Board, Lines, Part, Step
from devstack.versions import version_of

PORTS = {"grpc_port": 50051, "ops_port": 9091}


def _console() -> tuple[Console, StringIO]:
    shown = StringIO()
    return Console(file=shown, width=100, force_terminal=True, color_system=None), shown


def test_a_terminal_shows_each_part_with_its_state_version_and_address() -> None:
    console, shown = _console()
    board = Board(console)
    board.show(Part("auth-1", Step.STARTING, ports=PORTS))
    assert "starting" in shown.getvalue()
    board.show(Part("auth-1", Step.READY, 1.25, PORTS))
    board.settle()
    last = shown.getvalue().rpartition("part")[2]
    assert all(word in last for word in ("auth-1", "ready", version_of("auth-1"), "grpc :50051", "ops :9091", "1.25"))
    board.show(Part("auth-1", Step.STOPPED, 0.5))
    assert shown.getvalue().endswith("auth-1 stopped (0.50 s)\n")


def test_the_versions_are_those_of_the_programs() -> None:
    assert version_of("postgres").startswith("18.")
    assert version_of("valkey").count(".") == 2
    assert version_of("gateway").startswith("1.")
    assert version_of("task-2") == version_of("task-worker-1") == version_of("auth-1") != ""
    assert version_of("migrations") == ""


def test_a_log_gets_a_line_for_each_step(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    lines.show(Part("auth-1", Step.STARTING, ports=PORTS))
    lines.show(Part("auth-1", Step.READY, 1.25, PORTS))
    lines.show(Part("migrations", Step.READY, 0.5))
    lines.show(Part("auth-1", Step.KILLED, 10.0))
    assert capsys.readouterr().err.splitlines() == [
        "devstack: auth-1 ready (1.25 s; grpc port 50051, ops port 9091)",
        "devstack: migrations ready (0.50 s)",
        "devstack: auth-1 did not stop within 10.0 s and was killed",
    ]


def test_logs_are_followed_with_the_name_of_their_process(tmp_path: Path) -> None:
    console, shown = _console()
    task, postgres = tmp_path / "task-1.log", tmp_path / "postgres.log"
    postgres.write_text("old\n" * 2000 + "database system is ready\n")
    call = {
        "timestamp": "2026-11-29T10:11:12.345678Z",
        "level": "warning",
        "event": "call",
        "service": "task",
        "code": "OK",
        "seconds": 0.5,
        "none": None,
    }
    task.write_text(json.dumps(call) + "\nnot complete")

    def steps() -> Iterator[bool]:
        yield False
        with task.open("a") as log:
            log.write(" yet\n")
        yield False
        task.rename(tmp_path / "task-1.log.1")
        task.write_text("a new log\n")
        yield False
        yield True

    ended = steps()
    follow(tmp_path, console, lambda: next(ended))
    lines = [line.rstrip() for line in shown.getvalue().splitlines()]
    assert lines.count("postgres   old") < 1024
    assert lines[-4:-2] == ["postgres   database system is ready", "10:11:12.345 task-1     warning call code=OK seconds=0.5"]
    assert lines[-2:] == ["task-1     not complete yet", "task-1     a new log"]


def test_without_a_running_system_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageProblem, match="make run"):
        follow(tmp_path, Console())
    assert cli.main(["logs", "--data-dir", str(tmp_path)]) == 2
    assert "has no logs" in capsys.readouterr().err
