"""Reads a tour: a Markdown file with blocks of shell commands. After a block that prints something, a second block has the expected output."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_PARTS = re.compile(r"^## (?P<section>.*?)$|^```(?P<language>bash|text)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(slots=True)
class Block:
    """A block of commands, its section and its expected output."""

    section: str
    commands: str
    prints: str = ""


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
