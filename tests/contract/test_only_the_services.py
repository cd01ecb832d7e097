"""Which invalid tokens pass the gateway's JWT filter, so that only the services reject them. docs/security.md has the list."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from devstack.stack import Stack
from tests.contract.forgery import SCHEMES, TOKENS, Forge
from tests.gateway import stack as stubs
from tests.support.descriptors import named

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "security.md"
BLOCK = re.compile(r"<!-- only-the-services -->\n(.*)<!-- /only-the-services -->", re.DOTALL)
LIST_TASKS = named("TaskService.ListTasks").template


@pytest.fixture(scope="module")
def credulous(system: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[stubs.Gateway]:
    """The real gateway configuration with the running system's keys, in front of stub services that accept everything."""
    keys = f"127.0.0.1:{system.state.processes['auth-1'].ops_port}"
    with stubs.Stack.started(tmp_path_factory.mktemp("credulous")) as stack, stubs.gateway_behind(stack, jwks_endpoint=keys) as gateway:
        yield gateway


async def test_the_list_of_what_only_the_services_refuse_is_right(forge: Forge, credulous: stubs.Gateway) -> None:
    assert _status(credulous, f"Bearer {forge.good()}") == httpx.codes.OK
    values = {name: f"Bearer {make(forge)}" for name, make in TOKENS.items()} | {name: make(forge) for name, make in SCHEMES.items()}
    found = sorted(name for name, value in values.items() if _status(credulous, value) == httpx.codes.OK)
    block = BLOCK.search(DOCUMENT.read_text(encoding="utf-8"))
    assert block is not None
    assert re.findall(r"`([^`]+)`", block[1]) == found, "the list must be: " + ", ".join(f"`{name}`" for name in found)


def test_there_are_enough_cases_and_no_two_have_one_name() -> None:
    assert not set(TOKENS) & set(SCHEMES)
    assert len(TOKENS) + len(SCHEMES) >= 60


def _status(gateway: stubs.Gateway, authorization: str) -> int:
    status = gateway.request("GET", LIST_TASKS, token=False, headers={"authorization": authorization}).status_code
    assert status in {httpx.codes.OK, httpx.codes.UNAUTHORIZED}
    return status
