"""Retries: with the same idempotency key, after the waits that the server asks for, and never of a request that might be executed twice."""

import inspect
import json
from collections.abc import Callable, Iterator

import pytest

from task_manager_client import (
    AsyncClient,
    Client,
    ConnectionFailed,
    DeadlineExceeded,
    DependencyUnavailable,
    MemoryStore,
    NotConnected,
    Overloaded,
    Retries,
    TooManyAttempts,
    accounts,
    api_tokens,
    projects,
    tasks,
    webhooks,
)
from task_manager_client.core import Core
from task_manager_client.errors import BY_REASON
from task_manager_client.operation import IDEMPOTENCY_KEY, Operation
from task_manager_client.steps import Reply, Send, Wait
from task_manager_client.tokens import fixed
from tests.client.conftest import LOST_ANSWER, NO_CONNECTION, UNAVAILABLE, Forwarding, error_body
from tests.support.accounts import PASSWORD
from tests.support.descriptors import Rpc, rpcs

QUICK = Retries(first_seconds=0.001, most_seconds=0.002)


@pytest.mark.parametrize("fault", [NO_CONNECTION, UNAVAILABLE, LOST_ANSWER])
def test_a_write_is_repeated_under_one_key_and_happens_once(url: str, tokens: MemoryStore, fault: str) -> None:
    transport = Forwarding(fault, fault)
    with Client(url, tokens=tokens, transport=transport, retries=QUICK) as client:
        made = client.create_task("once")
        assert [task.id for task in client.iter_tasks()] == [made.id]
    (key,) = {request.headers[IDEMPOTENCY_KEY] for request in transport.requests[:3]}
    assert key


async def test_a_lost_answer_of_a_deletion_is_no_error(url: str, tokens: MemoryStore) -> None:
    transport = Forwarding(LOST_ANSWER, path="/tasks/")
    async with AsyncClient(url, tokens=tokens, transport=transport, retries=QUICK) as client:
        task = await client.create_task("x")
        await client.delete_task(task.id)
    assert [request.method for request in transport.requests] == ["DELETE"] * 2


def test_a_registration_is_repeated_only_if_it_was_not_sent(url: str, email: str) -> None:
    with Client(url, transport=Forwarding(NO_CONNECTION), retries=QUICK) as client:
        client.register(email, PASSWORD, "Ada")
    transport = Forwarding(LOST_ANSWER)
    with Client(url, transport=transport, retries=QUICK) as client, pytest.raises(ConnectionFailed) as caught:
        client.register(f"x{email}", PASSWORD, "Ada")
    assert not isinstance(caught.value, NotConnected)
    assert len(transport.requests) == 1


def test_the_attempts_are_limited(url: str, tokens: MemoryStore) -> None:
    transport = Forwarding(*[UNAVAILABLE] * 9)
    with Client(url, tokens=tokens, transport=transport, retries=QUICK) as client, pytest.raises(DependencyUnavailable):
        client.create_task("x")
    assert len(transport.requests) == QUICK.attempts


def test_nothing_listens() -> None:
    with Client("http://127.0.0.1:9", access_token="t", retries=QUICK) as client, pytest.raises(NotConnected):
        client.get_me()


def _waits(operation: Operation[object], answer: Callable[[], Reply], retries: Retries) -> Iterator[float]:
    """Yields the waits between the attempts of a call that always gets the same answer, until it fails."""
    steps = Core(fixed("t"), retries).call(operation)
    step = next(steps)
    try:
        while True:
            if isinstance(step, Wait):
                yield step.seconds
                step = next(steps)
            else:
                assert isinstance(step, Send)
                step = steps.send(answer())
    except (DependencyUnavailable, Overloaded, TooManyAttempts):
        return


def _failing(status: int, reason: str, delay: str = "") -> Callable[[], Reply]:
    return lambda: Reply(status, {}, json.dumps(error_body(reason, delay)).encode())


def test_the_waits_double_at_most_and_differ() -> None:
    retries = Retries(attempts=8, first_seconds=0.1, most_seconds=1.0)
    limits = [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
    runs = [list(_waits(tasks.get_task("x"), _failing(503, "DEPENDENCY_UNAVAILABLE"), retries)) for _ in range(50)]
    assert all(wait <= limit for run in runs for wait, limit in zip(run, limits, strict=True))
    assert len({run[0] for run in runs}) == len(runs)
    assert max(run[3] for run in runs) > 0.4


def test_the_wait_that_the_server_asks_for_is_the_least() -> None:
    waits = list(_waits(tasks.get_task("x"), _failing(429, "OVERLOADED", "0.700s"), Retries()))
    assert len(waits) == 4
    assert all(0.7 <= wait <= 0.7 + 0.8 for wait in waits)
    assert list(_waits(tasks.get_task("x"), _failing(429, "OVERLOADED", "60s"), Retries())) == []


def test_a_request_that_was_not_executed_is_repeated_even_without_a_key() -> None:
    register = accounts.register("a", "b", "c")
    assert len(list(_waits(register, _failing(429, "OVERLOADED"), Retries()))) == 4
    assert list(_waits(register, _failing(503, "DEPENDENCY_UNAVAILABLE"), Retries())) == []
    assert list(_waits(accounts.login("a", "b"), _failing(429, "TOO_MANY_ATTEMPTS", "1s"), Retries())) == []


def test_a_deadline_that_has_passed_is_not_tried_again() -> None:
    steps = Core(fixed("t"), Retries()).call(tasks.get_task("x"))
    next(steps)
    with pytest.raises(DeadlineExceeded):
        steps.send(_failing(504, "DEADLINE_EXCEEDED")())


def _operation(rpc: Rpc) -> Operation[object]:
    """Returns the call of an RPC, with arguments made up for the required parameters."""
    name = rpc.snake_name
    describe = next(getattr(module, name) for module in (tasks, projects, accounts, api_tokens, webhooks) if hasattr(module, name))
    required = [each for each in inspect.signature(describe).parameters.values() if each.default is each.empty and each.kind is not each.VAR_KEYWORD]
    made_up = {each.name: "x" if each.annotation is str else () for each in required}
    operation: Operation[object] = describe(**made_up)
    return operation


def _takes_key(rpc: Rpc) -> bool:
    """Whether the RPC takes an idempotency key."""
    return "IDEMPOTENCY_KEY_REUSED" in rpc.comment


# The protos do not say that these calls are safe to repeat.
SAFE_ALL_THE_SAME = {
    "login": "a repeated login leaves a session behind that nobody uses",
    "refresh_token": "the server answers a repeated request with the same tokens for 10 s",
    "update_me": "it sets the name to a value that the request contains",
}
CALLS = [rpc for rpc in rpcs() if rpc.verb and not rpc.streams]


@pytest.mark.parametrize("rpc", CALLS, ids=lambda rpc: rpc.name)
def test_a_call_is_repeated_if_and_only_if_that_is_safe(rpc: Rpc) -> None:
    operation = _operation(rpc)
    is_safe = rpc.is_idempotent or _takes_key(rpc)
    assert (IDEMPOTENCY_KEY in operation.request.headers) == _takes_key(rpc)
    assert operation.repeatable == (is_safe or rpc.snake_name in SAFE_ALL_THE_SAME)
    assert not (is_safe and rpc.snake_name in SAFE_ALL_THE_SAME)
    assert operation.authenticated == rpc.is_authenticated


def test_each_write_has_a_key_of_its_own() -> None:
    writes = [rpc for rpc in CALLS if _takes_key(rpc)]
    assert len({_operation(rpc).request.headers[IDEMPOTENCY_KEY] for rpc in [*writes, *writes]}) == 2 * len(writes) > 0


def test_an_etag_is_a_condition() -> None:
    assert tasks.update_task("x", title="y", etag='"1"').request.headers["if-match"] == '"1"'


def test_what_was_certainly_not_executed_is_repeated() -> None:
    kinds = [kind for kind in [ConnectionFailed, NotConnected, *BY_REASON.values()] if kind.not_executed]
    assert kinds
    assert all(Retries().wait_seconds(kind("x"), 1, repeatable=False) is not None for kind in kinds)
