"""A supervisor in the foreground, seen from outside: signals, exit status, messages, and that no process or file remains."""

import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.devstack.supervisor import Supervisor, all_gone, pids, until
from tests.support.tiers import first_quick

Supervise = Callable[..., Supervisor]

SUPERVISOR = pytest.mark.slow("starts a supervisor with a stack for a case that few changes touch")


@pytest.mark.parametrize("number", first_quick([signal.SIGTERM, signal.SIGINT, signal.SIGHUP]))
def test_a_signal_stops_everything_in_order_and_counts_as_success(supervise: Supervise, number: signal.Signals) -> None:
    supervisor = supervise()
    state = supervisor.ready()
    processes = pids(state)
    supervisor.running.send_signal(number)
    status, output, messages = supervisor.ended()
    assert status == 0, messages
    assert output.startswith(f"ready: {state['url']}\n")
    assert supervisor.journal.read_text().split() == ["gateway", "task-worker", "task", "auth"]
    stopped = [line.split()[1] for line in messages.splitlines() if " stopped (" in line]
    assert stopped == ["gateway", "task-worker-1", "task-1", "auth-1", "valkey", "postgres"]
    assert all_gone(processes)
    assert not supervisor.state_file.exists()
    assert not Path(state["data_dir"]).exists()


@SUPERVISOR
def test_the_state_file_is_its_owners_alone_and_complete(supervise: Supervise) -> None:
    supervisor = supervise()
    state = supervisor.ready()
    assert stat.S_IMODE(supervisor.state_file.stat().st_mode) == 0o600
    assert set(state["processes"]) == {"postgres", "valkey", "auth-1", "task-1", "task-worker-1", "gateway"}
    assert state["supervisor_pid"] == supervisor.running.pid
    assert state["url"] == f"http://localhost:{state['processes']['gateway']['port']}"
    for process in state["processes"].values():
        os.kill(process["pid"], 0)


@SUPERVISOR
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends processes with their supervisor")
def test_a_killed_supervisor_leaves_no_process_and_its_data_can_be_used_at_once(supervise: Supervise, tmp_path: Path) -> None:
    supervisor = supervise(data_dir=tmp_path / "data")
    processes = pids(supervisor.ready())
    supervisor.running.kill()
    supervisor.running.wait()
    again = supervise(data_dir=tmp_path / "data")
    again.ready()
    assert all_gone(processes)
    assert list((tmp_path / "data" / "logs").glob("gateway.log.1"))


@pytest.mark.parametrize("name", first_quick(["task-1", "postgres", "valkey", "auth-1", "task-worker-1", "gateway"]))
def test_a_process_that_dies_takes_the_rest_down_by_name(supervise: Supervise, name: str) -> None:
    supervisor = supervise()
    state = supervisor.ready()
    processes = pids(state)
    os.kill(state["processes"][name]["pid"], signal.SIGKILL)
    status, _, messages = supervisor.ended()
    assert status == 1
    assert f"devstack: {name} was ended by SIGKILL; end of" in messages
    if name in {"auth-1", "task-1", "gateway"}:
        assert f"  stand-in for {name.removesuffix('-1')} run\n" in messages
    # PostgreSQL's child processes take a moment to exit after their parent.
    until(lambda: all_gone(processes), "the end of every process")


@SUPERVISOR
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_starting_stops_what_had_been_started(supervise: Supervise, tmp_path: Path, number: signal.Signals) -> None:
    supervisor = supervise(data_dir=tmp_path / "data", fault="task=unready")
    # A stand-in installs its signal handler before it writes this line. Before that it would end without an entry in the journal.
    logs = [tmp_path / "data" / "logs" / f"{name}.log" for name in ("auth-1", "task-1", "task-worker-1")]
    until(lambda: all(log.exists() and "stand-in" in log.read_text() for log in logs), "the start of all services")
    processes = [int(path.read_text()) for path in (tmp_path / "data" / "run").glob("*.pid")]
    assert len(processes) >= 3
    supervisor.running.send_signal(number)
    status, output, messages = supervisor.ended()
    assert status == 0, messages
    assert output == ""
    assert all_gone(processes)
    assert supervisor.journal.read_text().split() == ["task-worker", "task", "auth"]


@SUPERVISOR
def test_a_signal_during_a_migration_ends_it(supervise: Supervise, tmp_path: Path) -> None:
    supervisor = supervise(data_dir=tmp_path / "data", fault="auth-migrate=hang")
    log = tmp_path / "data" / "logs" / "migrate-auth.log"
    until(lambda: log.exists() and "stand-in" in log.read_text(), "the start of the migration")
    began = time.monotonic()
    supervisor.running.send_signal(signal.SIGTERM)
    status, _, messages = supervisor.ended()
    assert status == 0, messages
    assert time.monotonic() - began < 4


@SUPERVISOR
def test_a_second_signal_hurries_and_says_who_was_killed(supervise: Supervise) -> None:
    supervisor = supervise(fault="auth=deaf")
    processes = pids(supervisor.ready())
    began = time.monotonic()
    supervisor.running.send_signal(signal.SIGINT)
    until(lambda: supervisor.journal.exists() and "task" in supervisor.journal.read_text().split(), "the stop of the task service")
    supervisor.running.send_signal(signal.SIGINT)
    status, _, messages = supervisor.ended()
    assert status == 1
    assert "auth-1 did not stop" in messages
    assert time.monotonic() - began < 8
    assert all_gone(processes)


@SUPERVISOR
def test_a_frozen_process_is_stopped_too(supervise: Supervise) -> None:
    supervisor = supervise()
    state = supervisor.ready()
    os.kill(state["processes"]["postgres"]["pid"], signal.SIGSTOP)
    supervisor.running.send_signal(signal.SIGTERM)
    status, _, messages = supervisor.ended()
    assert status == 0, messages


@pytest.mark.parametrize(
    ("fault", "name"), first_quick([("task-run=fail", "task-1"), ("auth-migrate=fail", "migrate-auth"), ("gateway=fail", "gateway")])
)
def test_a_start_that_fails_says_why_and_leaves_nothing(supervise: Supervise, fault: str, name: str, tmp_path: Path) -> None:
    supervisor = supervise(fault=fault)
    status, output, messages = supervisor.ended()
    assert status == 1
    assert output == ""
    assert f"devstack: {name} exited with status 1; end of" in messages
    assert "this stand-in was told to fail" in messages
    assert not supervisor.state_file.exists()
    assert not list((tmp_path / "tmp").iterdir())


def test_a_second_stack_on_the_same_data_names_the_first(supervise: Supervise, tmp_path: Path) -> None:
    first = supervise(data_dir=tmp_path / "data")
    first.ready()
    second = supervise(data_dir=tmp_path / "data")
    status, _, messages = second.ended()
    assert status == 2
    assert f"{tmp_path / 'data'} is in use by another stack (pid {first.running.pid})" in messages
    assert first.state_file.exists()


def test_taken_ports_are_all_named_before_anything_starts(supervise: Supervise, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = (one.getsockname()[1], two.getsockname()[1])
        asked = ("--gateway-port", str(ports[0]), "--task-ops-port", str(ports[1]))
        supervisor = supervise(program=(sys.executable, "-m", "devstack", "up", "--data-dir", str(tmp_path / "data"), *asked))
        status, _, messages = supervisor.ended()
    assert status == 2
    assert f"port {ports[0]}, wanted by the gateway (HTTP), is taken: choose another with --gateway-port or the variable GATEWAY_PORT" in messages
    assert f"port {ports[1]}, wanted by task_service (ops), is taken: choose another with --task-ops-port" in messages
    assert not list((tmp_path / "data" / "logs").iterdir())


@SUPERVISOR
def test_the_terminal_may_go_away(supervise: Supervise) -> None:
    supervisor = supervise()
    state = supervisor.ready()
    processes = pids(state)
    for stream in (supervisor.running.stdout, supervisor.running.stderr):
        assert stream is not None
        stream.close()
    supervisor.running.send_signal(signal.SIGHUP)
    assert supervisor.running.wait(20) == 0
    assert all_gone(processes)
