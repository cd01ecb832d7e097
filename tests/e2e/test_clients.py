"""Runs docs/clients.md as it is written: tm, the Python client, and clients of other kinds."""

from collections.abc import Mapping

import pytest

from devstack.stack import Stack
from tests.support.tour import Tour

TOUR = Tour("docs/clients.md", {"grpcurl": "go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest"})
TIMEOUT_SECONDS = 300


@pytest.fixture(scope="module")
async def printed(system: Stack, tmp_path_factory: pytest.TempPathFactory) -> Mapping[int, str]:
    environment = {"XDG_CONFIG_HOME": str(tmp_path_factory.mktemp("config"))}
    return await TOUR.printed(system.state.url, timeout_seconds=TIMEOUT_SECONDS, environment=environment)


@pytest.mark.slow("it starts many processes, one after the other")
@pytest.mark.parametrize("number", range(len(TOUR.blocks)), ids=TOUR.ids)
def test_a_block_prints_what_stands_under_it(number: int, printed: Mapping[int, str]) -> None:
    TOUR.check(number, printed)
