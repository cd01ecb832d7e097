"""The tour in docs/tour.md, run as it stands: what the system is for, done by three clients that nobody here wrote."""

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
# What a machine may lack, and the sections that begin to use it. buf comes with the project, and curl with the machine.
OPTIONAL = "grpcurl"
END_OF_BLOCK = "---- end of block {number} ----"
# It starts hundreds of processes, one after the other.
TIMEOUT_SECONDS = 180


@pytest.fixture(scope="module")
async def printed(system: Stack) -> Mapping[int, str]:
    """What each block printed, all run in one shell. Those that need what is not installed are left out."""
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


@pytest.mark.parametrize("number", range(len(BLOCKS)), ids=[f"{number}: {block.section}" for number, block in enumerate(BLOCKS)])
def test_a_block_of_the_tour_prints_what_stands_under_it(number: int, printed: Mapping[int, str]) -> None:
    if _lacking(BLOCKS[number]):
        assert not os.environ.get("CI"), f"{OPTIONAL} must be installed in CI"
        pytest.skip(f"{OPTIONAL} is not installed: go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest")
    assert number in printed, f"the shell ended within this block or before: {printed.get(-1)}"
    assert printed[number] == BLOCKS[number].prints


def test_the_tour_uses_all_three_clients() -> None:
    commands = "".join(block.commands for block in BLOCKS)
    assert all(f"{client} " in commands for client in ("curl", "grpcurl", "buf curl"))


def _lacking(block: Block) -> bool:
    return OPTIONAL in block.section and shutil.which(OPTIONAL) is None


def _by_block(output: str) -> dict[int, str]:
    """What was printed between the ends of blocks; under -1 what came after the last end."""
    found: dict[int, str] = {}
    for number, block in enumerate(BLOCKS):
        if not _lacking(block):
            before, end, after = output.partition(END_OF_BLOCK.format(number=number) + "\n")
            if not end:
                break
            found[number], output = before, after
    return {**found, -1: output}
