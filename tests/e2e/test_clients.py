"""Runs docs/clients.md as it is written: tm, the Python client, and clients of other kinds."""

import re
from collections.abc import Mapping

import pytest

from devstack.stack import Stack
from tests.support.tour import ROOT, Tour

DOCUMENT = "docs/clients.md"
OPTIONAL = {"grpcurl": "go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest", "npm": "https://nodejs.org", "go": "https://go.dev/dl"}
TOUR = Tour(DOCUMENT, OPTIONAL)
# The first build of the Go client downloads and compiles gRPC.
TIMEOUT_SECONDS = 900


@pytest.fixture(scope="module")
async def printed(system: Stack, tmp_path_factory: pytest.TempPathFactory) -> Mapping[int, str]:
    environment = {"XDG_CONFIG_HOME": str(tmp_path_factory.mktemp("config"))}
    return await TOUR.printed(system.state.url, timeout_seconds=TIMEOUT_SECONDS, environment=environment)


@pytest.mark.slow("it starts many processes, one after the other")
@pytest.mark.parametrize("number", range(len(TOUR.blocks)), ids=TOUR.ids)
def test_a_block_prints_what_stands_under_it(number: int, printed: Mapping[int, str]) -> None:
    TOUR.check(number, printed)


def test_the_function_for_a_browser_is_the_one_of_the_page_that_test_browser_runs() -> None:
    function = re.search(r"^async function\* events.*?^}$", (ROOT / DOCUMENT).read_text(), re.MULTILINE | re.DOTALL)
    assert function is not None
    assert function[0] in (ROOT / "tests" / "e2e" / "watching.html").read_text()
