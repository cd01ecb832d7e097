"""The calls of the benchmark on the running system: every one succeeds over both protocols, and the updates change random tasks each time."""

from collections import Counter

import grpc.aio
import pytest

from bench import scenarios, users, workload
from bench.calls import Calls, changes
from bench.jobs import Job
from bench.load import run
from bench.users import Users
from devstack.stack import Stack

TASKS = 100


@pytest.fixture
async def everybody(system: Stack) -> Users:
    return await Users.create(system.state.url, workload.USERS)


async def test_every_call_of_the_benchmark_succeeds(
    system: Stack, everybody: Users, task_channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenarios, "TASKS", TASKS)
    by_rpc, by_scenario = await workload.prepare(everybody.accounts, task_channel)
    assert [calls.name for calls in by_rpc] == ["GetTask", "ListTasks", "CreateTask", "UpdateTask"]
    assert [calls.name[:2] for calls in by_scenario] == ["a:", "b:", "c:", "d:", "e:", "f:", "g:"]
    processes = system.state.processes
    grpc_port, rest_port = processes["task-1"].grpc_port, processes["gateway"].port
    assert grpc_port and rest_port  # noqa: PT018 - both are there
    tokens = await everybody.tokens()
    for calls in (*by_rpc, *by_scenario):
        for protocol, port in (("grpc", grpc_port), ("http", rest_port)):
            result = await run(Job(protocol, port, 4, 0.0, 0.1, {}, tokens, calls.over(protocol)))
            assert (result.failures, result.first_failure) == (0, ""), calls.name
            assert result.latencies, calls.name


async def test_the_mixed_scenario_has_the_shares_of_its_name(
    everybody: Users, task_channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenarios, "TASKS", TASKS)
    mixed: Calls = (await scenarios.prepare(everybody.accounts[0], task_channel))[-1]
    assert Counter(request.path.rpartition("/")[2] for request in mixed.over("grpc")) == {
        "GetTask": 80, "ListTasks": 10, "CreateTask": 5, "UpdateTask": 5
    }  # fmt: skip
    assert Counter(request.method for request in mixed.over("http")) == {"GET": 90, "POST": 5, "PATCH": 5}


def test_two_successive_updates_of_a_task_differ() -> None:
    cycle = changes(list("abcdefgh")) * 2
    for item in "abcdefgh":
        numbers = [number for number, other in cycle if other == item]
        assert numbers == [0, 1, 0, 1]
    assert [item for _, item in cycle[:8]] != sorted(item for _, item in cycle[:8])


async def test_old_tokens_are_renewed(system: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    some = await Users.create(system.state.url, 3)
    before = await some.tokens()
    assert await some.tokens() == before
    monkeypatch.setattr(users, "RENEW_SECONDS", -1.0)
    after = await some.tokens()
    assert list(after) == list(before)
    assert not set(after.values()) & set(before.values())
