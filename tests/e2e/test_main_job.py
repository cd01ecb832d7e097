"""Runs the tour in docs/tour.md as it is written: the main use of the system, with three third-party clients."""

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from devstack.stack import Stack
from tests.support.tour import Block, blocks

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = blocks((ROOT / "docs" / "tour.md").read_text(encoding="utf-8"))
HOST_IN_THE_TOUR = "localhost:8080"
# A program that may be missing. The titles of the sections that need it contain its name. buf comes with the project, curl with the machine.
OPTIONAL = "grpcurl"
END_OF_BLOCK = "---- end of block {number} ----"
# The tour starts hundreds of processes, one after the other.
TIMEOUT_SECONDS = 180


@pytest.fixture(scope="module")
async def printed(system: Stack) -> Mapping[int, str]:
    """The output of each block. All blocks run in one shell, except those whose program is not installed."""
    script = "".join(f"{block.commands}echo '{END_OF_BLOCK.format(number=number)}'\n" for number, block in enumerate(BLOCKS) if not _lacking(block))
    shell = await asyncio.create_subprocess_exec(
        *("bash", "-c", script.replace(HOST_IN_THE_TOUR, system.state.url.removeprefix("http://"))),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=ROOT,
    )
    async with asyncio.timeout(TIMEOUT_SECONDS):
        output, _ = await shell.communicate()
    return _by_block(output.decode())


@pytest.mark.slow("the tour starts hundreds of processes, one after the other")
@pytest.mark.parametrize("number", range(len(BLOCKS)), ids=[f"{number}: {block.section}" for number, block in enumerate(BLOCKS)])
def test_a_block_of_the_tour_prints_what_stands_under_it(number: int, printed: Mapping[int, str]) -> None:
    if _lacking(BLOCKS[number]):
        assert not os.environ.get("CI"), f"{OPTIONAL} must be installed in CI"
        pytest.skip(f"{OPTIONAL} is not installed: go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest")
    assert number in printed, f"the shell ended in or before this block: {printed.get(-1)}"
    assert printed[number] == BLOCKS[number].prints


def test_the_tour_uses_all_three_clients() -> None:
    commands = "".join(block.commands for block in BLOCKS)
    assert all(f"{client} " in commands for client in ("curl", "grpcurl", "buf curl"))


def _lacking(block: Block) -> bool:
    return OPTIONAL in block.section and shutil.which(OPTIONAL) is None


def _by_block(output: str) -> dict[int, str]:
    """Returns the output of each block by its number, and the output after the last complete block under -1."""
    found: dict[int, str] = {}
    for number, block in enumerate(BLOCKS):
        if not _lacking(block):
            before, end, after = output.partition(END_OF_BLOCK.format(number=number) + "\n")
            if not end:
                break
            found[number], output = before, after
    return {**found, -1: output}
