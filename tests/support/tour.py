"""Reads and runs a tour: a Markdown file with blocks of shell commands. After a block that prints, a second block has the expected output."""

import asyncio
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.tools import missing

ROOT = Path(__file__).resolve().parents[2]
HOST_IN_A_TOUR = "localhost:8080"
END_OF_BLOCK = "---- end of block {number} ----"

_PARTS = re.compile(r"^## (?P<section>.*?)$|^```(?P<language>bash|text)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(slots=True)
class Block:
    """A block of commands, its section and its expected output."""

    section: str
    commands: str
    prints: str = ""


class Tour:
    """A tour. `optional` maps programs that may be missing to how to install them; the titles of the sections that need one contain its name."""

    def __init__(self, document: str, optional: Mapping[str, str]) -> None:
        self.blocks = blocks((ROOT / document).read_text(encoding="utf-8"))
        self.ids = [f"{number}: {block.section}" for number, block in enumerate(self.blocks)]
        self._optional = optional

    async def printed(self, url: str, *, timeout_seconds: float, environment: Mapping[str, str] | None = None) -> Mapping[int, str]:
        """Runs all blocks in one shell, except those whose program is not installed. Returns the output of each block by its number.

        The output after the last complete block is under -1.
        """
        script = "".join(f"{self.blocks[number].commands}echo '{END_OF_BLOCK.format(number=number)}'\n" for number in self._runnable())
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-c", script.replace(HOST_IN_A_TOUR, url.removeprefix("http://"))),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
        )
        async with asyncio.timeout(timeout_seconds):
            output, _ = await shell.communicate()
        return self._by_block(output.decode())

    def check(self, number: int, printed: Mapping[int, str]) -> None:
        """Compares the output of a block with the one in the tour. If the block's program is not installed, see `missing`."""
        if lacking := self._lacking(self.blocks[number]):
            missing(lacking, self._optional[lacking])
        assert number in printed, f"the shell ended in or before this block: {printed.get(-1)}"
        assert printed[number] == self.blocks[number].prints, f"{printed[number]!r} != {self.blocks[number].prints!r}"

    def _lacking(self, block: Block) -> str:
        return next((program for program in self._optional if program in block.section and shutil.which(program) is None), "")

    def _runnable(self) -> Sequence[int]:
        return [number for number, block in enumerate(self.blocks) if not self._lacking(block)]

    def _by_block(self, output: str) -> Mapping[int, str]:
        found: dict[int, str] = {}
        for number in self._runnable():
            before, end, after = output.partition(END_OF_BLOCK.format(number=number) + "\n")
            if not end:
                break
            found[number], output = before, after
        return {**found, -1: output}


def blocks(markdown: str) -> list[Block]:
    """Returns the blocks of a tour, in order."""
    return list(_blocks(markdown))


def _blocks(markdown: str) -> Iterator[Block]:
    section, current = "", None
    for part in _PARTS.finditer(markdown):
        if part["section"]:
            section = part["section"]
        elif part["language"] == "bash":
            if current is not None:
                yield current
            current = Block(section, part["code"])
        else:
            assert current is not None, "an output without commands"
            current.prints = part["code"]
    if current is not None:
        yield current
