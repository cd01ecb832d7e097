"""A canary of task_service: it gets its share of the calls, and an unhealthy canary makes no call fail."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.settings import GatewaySettings, SettingsError
from tests.gateway.stack import CREATE_TASK, GET_TASK, LOGIN, Gateway, Stack, gateway_behind, wait_until

CALLS = 2000
WEIGHT = 10
# Envoy chooses at random for each call. A deviation of this many standard deviations happens once in two million runs.
DEVIATIONS = 5


@pytest.fixture(scope="module")
def _canaried(_stack: Stack) -> Iterator[Gateway]:
    stable, canary = (f"127.0.0.1:{service.port}" for service in _stack.tasks)
    with gateway_behind(_stack, task_grpc_endpoints=stable, task_canary_endpoints=canary, task_canary_weight=WEIGHT) as gateway:
        yield gateway


@pytest.fixture
def canaried(_canaried: Gateway, stack: Stack) -> Gateway:
    """A gateway with one replica of each version."""
    wait_until(lambda: _healthy(_canaried) == 2, what=lambda: "the canary is not used")
    return _canaried


def test_of_a_hundred_calls_ninety_go_to_the_one_and_ten_to_the_other(canaried: Gateway, stack: Stack) -> None:
    _call(canaried, GET_TASK, CALLS)
    stable, canary = (service.calls[GET_TASK] for service in stack.tasks)
    assert stable + canary == CALLS
    share = WEIGHT / 100
    assert abs(canary - CALLS * share) < DEVIATIONS * math.sqrt(CALLS * share * (1 - share))


def test_rest_and_writes_have_the_same_share(canaried: Gateway, stack: Stack) -> None:
    for _ in range(200):
        assert canaried.request("POST", "/api/v1/tasks", json={}).status_code == 201
    assert 0 < stack.tasks[1].calls[CREATE_TASK] < 60


def test_what_is_not_canaried_is_not_divided(canaried: Gateway, stack: Stack) -> None:
    _call(canaried, LOGIN, 20)
    assert stack.auth.calls[LOGIN] == 20


def test_a_canary_that_is_ill_costs_no_call(canaried: Gateway, stack: Stack) -> None:
    stack.tasks[1].set_health(serving=False)
    wait_until(lambda: _healthy(canaried) == 1, what=lambda: "the canary is still used")
    _call(canaried, CREATE_TASK, 300)
    assert [service.calls[CREATE_TASK] for service in stack.tasks] == [300, 0]


def test_blue_green_is_a_weight_of_a_hundred(stack: Stack) -> None:
    blue, green = (f"127.0.0.1:{service.port}" for service in stack.tasks)
    with gateway_behind(stack, task_grpc_endpoints=blue, task_canary_endpoints=green, task_canary_weight=100) as gateway:
        wait_until(lambda: _healthy(gateway) == 2)
        _call(gateway, GET_TASK, 50)
    assert [service.calls[GET_TASK] for service in stack.tasks] == [0, 50]


def test_a_weight_of_none_takes_it_back(stack: Stack) -> None:
    stable, canary = (f"127.0.0.1:{service.port}" for service in stack.tasks)
    with gateway_behind(stack, task_grpc_endpoints=stable, task_canary_endpoints=canary, task_canary_weight=0) as gateway:
        _call(gateway, GET_TASK, 50)
    assert [service.calls[GET_TASK] for service in stack.tasks] == [50, 0]


def test_a_share_for_nobody_is_refused() -> None:
    with pytest.raises(SettingsError, match="TASK_CANARY_WEIGHT needs TASK_CANARY_ENDPOINTS"):
        GatewaySettings.from_environment({"TASK_CANARY_WEIGHT": "10"})


def _call(gateway: Gateway, path: str, times: int) -> None:
    """Makes the calls. Every one of them must succeed."""
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: gateway.call(path), range(times)))


def _healthy(gateway: Gateway) -> int:
    """Returns how many versions of task_service have a healthy host."""
    text = gateway.http.get(f"http://127.0.0.1:{gateway.settings.admin_port}/clusters").text
    lines = [line for line in text.splitlines() if line.startswith(("task_service::", "task_service_canary::")) and "::health_flags::" in line]
    return sum(line.endswith("::healthy") for line in lines)
