"""The tests, settings and events that docs/security.md names exist."""

import re
from pathlib import Path

from auth_service.security_log import SecurityEvent
from auth_service.settings import Settings as AuthSettings
from gateway.settings import GatewaySettings
from servicekit.process.commands import MigrationSettings
from task_service.settings import Settings as TaskSettings

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
ASVS = TEXT[TEXT.index("## OWASP ASVS 5") :]


def test_every_test_that_it_names_is_there() -> None:
    named = re.findall(r"`(tests/[^`]+)`", TEXT)
    assert len(named) > 20
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_every_requirement_has_a_test_or_says_why_not() -> None:
    rows = [line for line in ASVS.splitlines() if re.match(r"\| \d", line)]
    assert len(rows) > 20
    assert [row for row in rows if "`tests/" not in row and "there is no such code" not in row] == []


def test_every_requirement_stands_in_one_row() -> None:
    numbers = [number.strip() for row in ASVS.splitlines() if re.match(r"\| \d", row) for number in row.split("|")[1].split(",")]
    assert [number for number in numbers if not re.fullmatch(r"\d+\.\d+\.\d+", number)] == []
    assert sorted(set(numbers)) == sorted(numbers)


def test_every_setting_that_it_names_is_there() -> None:
    known = {name.upper() for settings in (AuthSettings, TaskSettings, GatewaySettings, MigrationSettings) for name in settings.model_fields}
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", TEXT))
    reasons = {"ACCESS_PUBLIC", "ACCESS_AUTHENTICATED", "ACCESS_INTERNAL"}
    assert named - reasons <= known


def test_it_names_every_security_event() -> None:
    logged = TEXT[TEXT.index("## What is logged") :]
    assert {event for event in SecurityEvent if f"`{event}`" not in logged} == set()
