"""Executes every order of a model's steps."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

W = TypeVar("W", bound=Hashable)
# What happens, and the world after it.
Step: TypeAlias = tuple[str, W]


class OutdatedAnswer(Exception):
    """An answer was older than what was seen before its call began."""


class Model(Protocol[W]):
    """Worlds and the steps between them."""

    def start(self) -> W:
        """Returns the first world."""

    def steps(self, world: W) -> Iterator[Step[W]]:
        """Yields every world that can follow. Raises OutdatedAnswer at a step that gives one."""


@dataclass(frozen=True, slots=True)
class Explored:
    """The number of worlds, and the history that ends in an outdated answer, if there is one."""

    worlds: int
    history: tuple[str, ...] | None = None


def explore(model: Model[W]) -> Explored:
    """Executes the steps depth first, up to the first outdated answer. It remembers worlds by their hash of 64 bits."""
    start = model.start()
    seen = {hash(start)}
    stack = [("start", model.steps(start))]
    while stack:
        try:
            told, world = next(stack[-1][1])
        except StopIteration:
            stack.pop()
        except OutdatedAnswer:
            return Explored(len(seen), tuple(label for label, _ in stack))
        else:
            if (key := hash(world)) not in seen:
                seen.add(key)
                stack.append((told, model.steps(world)))
    return Explored(len(seen))
