"""`python -m helm.values_table`: writes the table of values into the chart's README, from the `# --` comments above the defaults."""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from helm.chart import ROOT

README: Final = ROOT / "README.md"
_TABLE: Final = re.compile(r"(?<=<!-- values -->\n).*?(?=<!-- /values -->)", re.DOTALL)
# All charts except the library chart, which has no values.
COMPONENTS: Final = ("auth-service", "task-service", "task-worker", "gateway", "postgresql", "redis", "backup", "monitoring")


@dataclass(frozen=True, slots=True)
class Row:
    """A value: its dotted path, its default and its description."""

    path: str
    default: Any
    text: str


class NotDescribed(ValueError):
    """Neither the value nor a mapping that contains it has a `# --` comment. The message is the path of the value."""


def rows(file: Path, prefix: str = "") -> list[Row]:
    """Returns the values of a file in file order. Raises NotDescribed."""
    text = file.read_text(encoding="utf-8")
    node = yaml.compose(text)
    return list(_rows(node, prefix, text.splitlines())) if isinstance(node, yaml.MappingNode) else []


def _rows(node: yaml.MappingNode, prefix: str, lines: list[str]) -> Iterator[Row]:
    for key, value in node.value:
        path = f"{prefix}{key.value}"
        if text := _comment(lines, key.start_mark.line):
            yield Row(path, _plain(value), text)
        elif isinstance(value, yaml.MappingNode) and value.value:
            yield from _rows(value, f"{path}.", lines)
        else:
            raise NotDescribed(path)


def _comment(lines: list[str], line: int) -> str:
    """Returns the comment directly above a line, from the last `# --` on. Empty if there is none."""
    above: list[str] = []
    while line and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        above.insert(0, lines[line].lstrip().removeprefix("#").strip())
    marks = [number for number, text in enumerate(above) if text.startswith("-- ")]
    return " ".join(above[marks[-1] :]).removeprefix("-- ") if marks else ""


def _plain(node: yaml.Node) -> Any:
    return yaml.safe_load(yaml.serialize(node))


def table() -> str:
    """Returns the table in Markdown. A value that both the umbrella and a component define has one row, with the umbrella's description."""
    umbrella = {row.path: row for row in rows(ROOT / "values.yaml")}
    components = {row.path: row for name in COMPONENTS for row in rows(ROOT / "charts" / name / "values.yaml", f"{name}.")}
    found = umbrella | components | umbrella
    lines = [f"| `{row.path}` | {_default(row.default)} | {row.text.replace('|', chr(92) + '|')} |" for row in found.values()]
    return "\n".join(["| value | default | what it is |", "| --- | --- | --- |", *lines]) + "\n"


def _default(value: Any) -> str:
    return f"`{json.dumps(value)}`"


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m helm.values_table", description="Writes the chart's table of values into its README.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with status 1 if the table in the README differs")
    check = parser.parse_args().check
    text = README.read_text(encoding="utf-8")
    wanted = _TABLE.sub(lambda _: table(), text)
    if not check:
        README.write_text(wanted, encoding="utf-8")
    elif wanted != text:
        sys.stderr.write(f"{README} has a table that differs from the values; run `make manifests`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
