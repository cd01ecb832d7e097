"""Reads docker-compose.yml as compose does, and inserts its variables."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.yml"
# `${NAME:?words}` must be set; `${NAME:-default}` is optional. The file uses no other form.
VARIABLE = re.compile(r"\$\{([A-Z_]+):([-?])([^}]*)\}")


@cache
def project() -> dict[str, Any]:
    """Returns the file with its anchors resolved. Variables are not inserted."""
    return dict(yaml.safe_load(FILE.read_text(encoding="utf-8")))


def services() -> dict[str, Any]:
    """Returns the services of the file."""
    return dict(project()["services"])


def required() -> set[str]:
    """Returns the names of the variables that must be set."""
    return {match[1] for match in VARIABLE.finditer(FILE.read_text(encoding="utf-8")) if match[2] == "?"}


def defaults() -> dict[str, str]:
    """Returns the optional variables with their defaults."""
    return {match[1]: match[3] for match in VARIABLE.finditer(FILE.read_text(encoding="utf-8")) if match[2] == "-"}


def passed_on() -> set[str]:
    """Returns the settings without a value in the file. Compose takes their values from .env."""
    return {name for service in services().values() for name, value in service.get("environment", {}).items() if value is None}


def filled(values: dict[str, str]) -> str:
    """Returns the text of the file with the variables inserted."""
    text = VARIABLE.sub(lambda match: values.get(match[1]) or (match[3] if match[2] == "-" else ""), FILE.read_text(encoding="utf-8"))
    return text.replace("$$", "$")
