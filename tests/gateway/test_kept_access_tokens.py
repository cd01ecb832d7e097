"""The gateway keeps the access token of an API token for a few seconds, and gives it to nobody else."""

import asyncio

import grpc
import httpx
import pytest

from tests.gateway.stack import GET_TASK, LOGIN, Gateway, Stack, gateway_behind
from tests.support.waiting import eventually

TASKS = "/api/v1/tasks"
# The seconds and the number of what the script keeps, and the bounds of a test.
BOUNDS = "SECONDS, MOST = 5, 1000"


def test_calls_on_one_connection_need_one_exchange(gateway: Gateway, stack: Stack, accepted: str, api_token: dict[str, str]) -> None:
    """Each worker of Envoy keeps its own access tokens, and serves a connection to its end."""
    for _ in range(5):
        assert gateway.request("GET", f"{TASKS}/1", token=False, headers=api_token).status_code == 200
        assert stack.metadata()["authorization"] == f"Bearer {accepted}"
        stack.services[0].metadata.clear()
    for _ in range(5):
        gateway.call(GET_TASK, token=False, metadata=api_token)
    assert 1 <= len(stack.keys.exchanges) <= 2


def test_what_is_kept_is_for_the_same_token_alone(gateway: Gateway, stack: Stack, accepted: str, api_token: dict[str, str], token: str) -> None:
    assert gateway.request("GET", TASKS, token=False, headers=api_token).status_code == 200
    stack.keys.exchange = lambda _: (401, {})
    assert gateway.request("GET", TASKS, token=False, headers=api_token).status_code == 200
    for other in (f"{token}x", token[:-1], token.upper(), f"{token} {token}", f"{token},{token}"):
        assert gateway.request("GET", TASKS, token=False, headers={"authorization": f"Bearer {other}"}).status_code == 401, other


def test_two_headers_are_no_token_although_the_first_is_kept(gateway: Gateway, stack: Stack, accepted: str, api_token: dict[str, str]) -> None:
    with httpx.Client(base_url=gateway.url) as client:
        assert client.get(TASKS, headers=api_token).status_code == 200
        stack.keys.exchange = lambda _: (401, {})
        kept = ("authorization", api_token["authorization"])
        for others in ((kept, ("authorization", "Bearer tm_x")), (("authorization", "Bearer tm_x"), kept), (kept, kept)):
            assert client.get(TASKS, headers=list(others)).status_code == 401


def test_a_public_method_gets_nothing_that_is_kept(gateway: Gateway, stack: Stack, accepted: str, api_token: dict[str, str]) -> None:
    gateway.call(GET_TASK, token=False, metadata=api_token)
    stack.reset()
    gateway.call(LOGIN, token=False, metadata=api_token)
    assert accepted not in str(stack.metadata())


async def test_an_access_token_is_kept_for_seconds(stack: Stack, accepted: str, api_token: dict[str, str]) -> None:
    with gateway_behind(stack, sooner={BOUNDS: "SECONDS, MOST = 1, 1000"}) as gateway:
        assert gateway.request("GET", TASKS, token=False, headers=api_token).status_code == 200
        stack.keys.exchange = lambda _: (401, {})

        async def refused() -> None:
            assert (await asyncio.to_thread(gateway.request, "GET", TASKS, token=False, headers=api_token)).status_code == 401

        await eventually(refused, within=3)


def test_the_number_of_those_kept_has_a_bound(stack: Stack, accepted: str, token: str) -> None:
    with gateway_behind(stack, sooner={BOUNDS: "SECONDS, MOST = 5, 2"}) as gateway:
        headers = [{"authorization": f"Bearer {token}{number}"} for number in range(3)]
        for each in (*headers, headers[2], headers[0]):
            assert gateway.request("GET", TASKS, token=False, headers=each).status_code == 200
    # The third was kept, the first no more.
    assert [sent["authorization"][-1] for _, _, sent in stack.keys.exchanges] == ["0", "1", "2", "0"]


@pytest.mark.parametrize("way", ["rest", "grpc"])
def test_after_a_refusal_by_a_service_every_token_is_exchanged_anew(
    gateway: Gateway, stack: Stack, accepted: str, api_token: dict[str, str], way: str
) -> None:
    def call() -> int:
        if way == "rest":
            return gateway.request("GET", f"{TASKS}/1", token=False, headers=api_token).status_code
        try:
            gateway.call(GET_TASK, token=False, metadata=api_token)
        except grpc.RpcError as error:
            return int(error.code().value[0])  # type: ignore[attr-defined]  # of a call
        return 200

    assert call() == call() == 200
    asked = len(stack.keys.exchanges)
    stack.behave(GET_TASK, lambda _, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "ended"))
    assert call() in {401, 16}
    assert len(stack.keys.exchanges) == asked
    stack.behave(GET_TASK, lambda _, __: stack.messages.response(GET_TASK)())
    assert call() == 200
    assert len(stack.keys.exchanges) == asked + 1
