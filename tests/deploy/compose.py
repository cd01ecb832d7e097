"""docker-compose.yml as compose sees it: read, and with its variables put in."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.yml"
# `${NAME:?words}` must be set, `${NAME:-default}` need not be. The file uses no other form.
VARIABLE = re.compile(r"\$\{([A-Z_]+):([-?])([^}]*)\}")


@cache
def project() -> dict[str, Any]:
    """The file, its anchors resolved and its variables as they are written."""
    return dict(yaml.safe_load(FILE.read_text(encoding="utf-8")))


def services() -> dict[str, Any]:
    """Its services."""
    return dict(project()["services"])


def required() -> set[str]:
    """The variables that must be set."""
    return {match[1] for match in VARIABLE.finditer(FILE.read_text(encoding="utf-8")) if match[2] == "?"}


def defaults() -> dict[str, str]:
    """The variables that need not be set, with what holds then."""
    return {match[1]: match[3] for match in VARIABLE.finditer(FILE.read_text(encoding="utf-8")) if match[2] == "-"}


def passed_on() -> set[str]:
    """The settings without a value: each is what .env has."""
    return {name for service in services().values() for name, value in service.get("environment", {}).items() if value is None}


def filled(values: dict[str, str]) -> str:
    """The text with the variables put in."""
    text = VARIABLE.sub(lambda match: values.get(match[1]) or (match[3] if match[2] == "-" else ""), FILE.read_text(encoding="utf-8"))
    return text.replace("$$", "$")
