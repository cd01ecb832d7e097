"""docs/security.md: its table of requirements names each once, and tests that there are."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
ROWS = [line.strip("|").split("|") for line in DOCUMENT[DOCUMENT.index("| ASVS |") :].splitlines()[2:] if line.startswith("|")]
REQUIREMENT = re.compile(r"\d+\.\d+\.\d+")


def test_each_requirement_stands_in_one_row() -> None:
    numbers = [number.strip() for row in ROWS for number in row[0].split(",")]
    assert len(numbers) > len(ROWS)
    assert [number for number in numbers if not REQUIREMENT.fullmatch(number)] == []
    assert [number for number, times in Counter(numbers).items() if times > 1] == []


def test_each_row_names_tests_that_there_are() -> None:
    for _, what, shown_by in ROWS:
        files = re.findall(r"`([^`]+)`", shown_by)
        assert files or "no such code" in shown_by, what
        assert [file for file in files if not (ROOT / file).is_file()] == []
