"""Finds the names in a PromQL query: the series that it selects, and the labels by which it groups and joins. Checks nothing else."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Labels: TypeAlias = Mapping[str, str]

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\[[^\]]*\]|[A-Za-z_:][\w:]*|\d[\w.]*|\S')
_NAME = re.compile(r"[A-Za-z_:][\w:]*")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
_LABELS_FOLLOW = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}


@dataclass(frozen=True, slots=True)
class Selector:
    """A metric's name and its matchers: (label, operator, text)."""

    name: str
    matchers: tuple[tuple[str, str, str], ...] = ()

    def selects(self, name: str, labels: Labels) -> bool:
        """Whether it selects this series. As in Prometheus, a missing label is empty, and a regular expression must match the whole value."""
        return name == self.name and all(_fits(labels.get(label, ""), operator, text) for label, operator, text in self.matchers)


@dataclass(frozen=True, slots=True)
class Named:
    """The names in a query."""

    selectors: tuple[Selector, ...]
    labels: frozenset[str]


def named(query: str) -> Named:
    """Parses a query. The result is undefined if the text is not PromQL."""
    tokens = _TOKEN.findall(query)
    selectors: list[Selector] = []
    labels: set[str] = set()
    index = 0
    while index < len(tokens):
        token, following = tokens[index], tokens[index + 1] if index + 1 < len(tokens) else ""
        index += 1
        if token == "{":
            end = tokens.index("}", index)
            selectors[-1] = Selector(selectors[-1].name, tuple(_MATCHER.findall("".join(tokens[index:end]))))
            index = end
        elif token in _LABELS_FOLLOW:
            end = tokens.index(")", index)
            labels.update(filter(_NAME.fullmatch, tokens[index:end]))
            index = end
        elif _NAME.fullmatch(token) and token.lower() not in _WORDS and following not in {"(", "by", "without"}:
            selectors.append(Selector(token))
    return Named(tuple(selectors), frozenset(labels))


def missing(query: str, series: Sequence[tuple[str, Labels]], exempt: Mapping[str, str]) -> Iterator[str]:
    """Yields the names in the query that none of the series has. Ignores the exempt metrics."""
    names = named(query)
    sought = [selector for selector in names.selectors if selector.name not in exempt]
    found: set[str] = set()
    for selector in sought:
        selected = [labels for name, labels in series if selector.selects(name, labels)]
        found.update(*selected)
        if not selected:
            yield f"no series {selector.name} with {selector.matchers}" if selector.matchers else f"no series {selector.name}"
    if len(sought) == len(names.selectors):
        yield from (f"no label {label}" for label in sorted(names.labels - found))


def _fits(value: str, operator: str, text: str) -> bool:
    if operator in {"=~", "!~"}:
        return (re.fullmatch(text, value) is not None) is (operator == "=~")
    return (value == text) is (operator == "=")
