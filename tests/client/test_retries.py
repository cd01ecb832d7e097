"""Retries: with the same idempotency key, after the waits that the server asks for, and never of a request that might be executed twice."""

import json
from collections.abc import Callable, Iterator

import httpx
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
    tasks,
)
from task_manager_client.core import Core
from task_manager_client.operation import IDEMPOTENCY_KEY, Operation
from task_manager_client.steps import Reply, Request, Send, Wait
from task_manager_client.tokens import fixed
from tests.support.accounts import PASSWORD

QUICK = Retries(first_seconds=0.001, most_seconds=0.002)
INFO = "type.googleapis.com/google.rpc.ErrorInfo"
RETRY = "type.googleapis.com/google.rpc.RetryInfo"


class Faults(httpx.BaseTransport):
    """Forwards requests to the system and runs the next fault on each: before the request is sent, or on its answer."""

    def __init__(self, *faults: str) -> None:
        self._real = httpx.HTTPTransport()
        self._faults = list(faults)
        self.keys: list[str | None] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.keys.append(request.headers.get(IDEMPOTENCY_KEY))
        fault = self._faults.pop(0) if self._faults else ""
        if fault == "no connection":
            raise httpx.ConnectError("refused")
        if fault == "unavailable":
            return httpx.Response(503, json=_error("DEPENDENCY_UNAVAILABLE"))
        response = self._real.handle_request(request)
        if fault == "lost answer":
            response.read()
            response.close()
            raise httpx.ReadError("reset")
        return response

    def close(self) -> None:
        self._real.close()


def _error(reason: str, delay: str = "") -> dict[str, object]:
    details = [{"@type": INFO, "reason": reason, "metadata": {}}, *([{"@type": RETRY, "retry_delay": delay}] if delay else [])]
    return {"code": 0, "message": reason, "details": details}


@pytest.mark.parametrize("fault", ["no connection", "unavailable", "lost answer"])
def test_a_write_is_repeated_under_one_key_and_happens_once(url: str, tokens: MemoryStore, fault: str) -> None:
    transport = Faults(fault, fault)
    with Client(url, tokens=tokens, transport=transport, retries=QUICK) as client:
        made = client.create_task("once")
        assert [task.id for task in client.iter_tasks()] == [made.id]
    assert len(set(transport.keys[:3])) == 1
    assert transport.keys[0] is not None


async def test_a_lost_answer_of_a_deletion_is_no_error(url: str, tokens: MemoryStore) -> None:
    real = httpx.AsyncHTTPTransport()

    class Losing(httpx.AsyncBaseTransport):
        lost = 0

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await real.handle_async_request(request)
            if request.method == "DELETE" and not self.lost:
                self.lost += 1
                await response.aclose()
                raise httpx.RemoteProtocolError("cut")
            return response

        async def aclose(self) -> None:
            await real.aclose()

    async with AsyncClient(url, tokens=tokens, transport=Losing(), retries=QUICK) as client:
        task = await client.create_task("x")
        await client.delete_task(task.id)


def test_a_registration_is_repeated_only_if_it_was_not_sent(url: str, email: str) -> None:
    with Client(url, transport=Faults("no connection"), retries=QUICK) as client:
        client.register(email, PASSWORD, "Ada")
    transport = Faults("lost answer")
    with Client(url, transport=transport, retries=QUICK) as client, pytest.raises(ConnectionFailed) as caught:
        client.register(f"x{email}", PASSWORD, "Ada")
    assert not isinstance(caught.value, NotConnected)
    assert len(transport.keys) == 1


def test_the_attempts_are_limited(url: str, tokens: MemoryStore) -> None:
    transport = Faults(*["unavailable"] * 9)
    with Client(url, tokens=tokens, transport=transport, retries=QUICK) as client, pytest.raises(DependencyUnavailable):
        client.create_task("x")
    assert len(transport.keys) == QUICK.attempts


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
    return lambda: Reply(status, {}, json.dumps(_error(reason, delay)).encode())


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


def test_every_request_that_may_be_repeated_is_safe_to_repeat() -> None:
    etag: Request = tasks.update_task("x", title="y", etag='"1"').request
    assert etag.headers["if-match"] == '"1"'
    writes = [
        tasks.create_task("x"),
        tasks.update_task("x", title="y"),
        tasks.replace_task("x", "y"),
        tasks.delete_task("x"),
        tasks.undelete_task("x"),
    ]
    batches = [tasks.batch_create_tasks([]), tasks.batch_update_tasks([]), tasks.batch_delete_tasks([])]
    assert all(IDEMPOTENCY_KEY in write.request.headers for write in [*writes, *batches])
    keys = {write.request.headers[IDEMPOTENCY_KEY] for write in [*writes, *batches]}
    assert len(keys) == len(writes) + len(batches)
