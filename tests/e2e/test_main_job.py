"""Runs the tour in docs/tour.md as it is written: the main use of the system, with three third-party clients."""

from collections.abc import Mapping

import pytest

from devstack.stack import Stack
from tests.support.tour import Tour

# buf comes with the project, curl with the machine.
TOUR = Tour("docs/tour.md", {"grpcurl": "go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest"})
# The tour starts hundreds of processes, one after the other.
TIMEOUT_SECONDS = 180


@pytest.fixture(scope="module")
async def printed(system: Stack) -> Mapping[int, str]:
    return await TOUR.printed(system.state.url, timeout_seconds=TIMEOUT_SECONDS)


@pytest.mark.slow("the tour starts hundreds of processes, one after the other")
@pytest.mark.parametrize("number", range(len(TOUR.blocks)), ids=TOUR.ids)
def test_a_block_of_the_tour_prints_what_stands_under_it(number: int, printed: Mapping[int, str]) -> None:
    TOUR.check(number, printed)


def test_the_tour_uses_all_three_clients() -> None:
    commands = "".join(block.commands for block in TOUR.blocks)
    assert all(f"{client} " in commands for client in ("curl", "grpcurl", "buf curl"))
