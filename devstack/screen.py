"""What the command line shows while the parts of the system start, run and stop: a table on a terminal, a line for each step elsewhere."""

import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from devstack.versions import version_of


class Step(StrEnum):
    """What a part does now."""

    STARTING = "starting"
    READY = "ready"
    STOPPED = "stopped"
    KILLED = "killed"


@dataclass(frozen=True, slots=True)
class Part:
    """A process of the system, or the migrations: its step, how long the step took in seconds, and its ports by their names."""

    name: str
    step: Step
    seconds: float = 0.0
    ports: Mapping[str, int] | None = None


class Screen(Protocol):
    """Shows the progress. A closed terminal is no error: the supervisor must still stop its processes."""

    def show(self, part: Part) -> None:
        """Shows the step of a part."""

    def say(self, text: str) -> None:
        """Shows a message of one or more lines."""

    def settle(self) -> None:
        """All parts are ready: what is shown of them stays."""


class Silent:
    """Shows nothing."""

    def show(self, part: Part) -> None:
        """See Screen.show."""

    def say(self, text: str) -> None:
        """See Screen.say."""

    def settle(self) -> None:
        """See Screen.settle."""


class Lines:
    """A line for each step, for a log."""

    def show(self, part: Part) -> None:
        """See Screen.show."""
        match part.step:
            case Step.READY:
                where = ", ".join(f"{kind.replace('_', ' ')} {number}" for kind, number in (part.ports or {}).items())
                self.say(f"{part.name} ready ({part.seconds:.2f} s; {where})" if where else f"{part.name} ready ({part.seconds:.2f} s)")
            case Step.STOPPED:
                self.say(f"{part.name} stopped ({part.seconds:.2f} s)")
            case Step.KILLED:
                self.say(f"{part.name} did not stop within {part.seconds:.1f} s and was killed")

    def say(self, text: str) -> None:
        """See Screen.say."""
        with suppress(OSError):
            for line in text.splitlines():
                print(f"devstack: {line}", file=sys.stderr, flush=True)

    def settle(self) -> None:
        """See Screen.settle."""


_STYLES: Final = {Step.STARTING: "yellow", Step.READY: "green", Step.STOPPED: "dim", Step.KILLED: "red"}


class Board:
    """A table of the parts, which changes while they start."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._parts: dict[str, Part] = {}
        # Not drawn by a thread of its own, so that nothing is drawn after `settle`.
        self._live: Live | None = Live(console=console, auto_refresh=False)
        self._live.start()

    def show(self, part: Part) -> None:
        """See Screen.show."""
        self._parts[part.name] = part
        if self._live is not None:
            with suppress(OSError):
                self._live.update(self._table(), refresh=True)
        elif part.step is not Step.STARTING:
            self.say(f"{part.name} {part.step} ({part.seconds:.2f} s)")

    def say(self, text: str) -> None:
        """See Screen.say."""
        with suppress(OSError):
            self._console.print(Text(text))

    def settle(self) -> None:
        """See Screen.settle."""
        if self._live is not None:
            with suppress(OSError):
                self._live.stop()
            self._live = None

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for heading in ("part", "", "version", "address", "seconds"):
            table.add_column(heading, header_style="dim", justify="right" if heading == "seconds" else "left")
        for part in self._parts.values():
            address = "  ".join(f"{kind.replace('_port', '').replace('port', '')} :{number}".strip() for kind, number in (part.ports or {}).items())
            took = f"{part.seconds:.2f}" if part.seconds else ""
            table.add_row(part.name, Text(part.step, style=_STYLES[part.step]), version_of(part.name), address, took)
        return table


def screen() -> Screen:
    """Returns the screen for standard error."""
    console = Console(stderr=True)
    return Board(console) if console.is_terminal else Lines()
