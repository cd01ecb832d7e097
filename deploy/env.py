"""Manages the secrets of docker-compose.yml in `.env`: `env.py make` generates the missing ones, `env.py check` lists them.

It never changes or prints an existing secret. It uses only the standard library, because it runs before anything is installed.
"""

import base64
import os
import re
import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

FILE: Final = Path(__file__).resolve().parent.parent / ".env"
HEADER: Final = "# Written by `make env`. Keep it private. You can also set every other setting of .env.example here.\n"


def _hex() -> str:
    """Returns a secret that can be part of a URL."""
    return secrets.token_hex(32)


def _base64() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


SECRETS: Final[Mapping[str, Callable[[], str]]] = {
    "SERVICE_TOKEN": _hex,
    "KEY_ENCRYPTION_KEY": _base64,
    "PAGE_TOKEN_KEY": _base64,
    "POSTGRES_PASSWORD": _hex,
    "MIGRATOR_PASSWORD": _hex,
    "AUTH_SERVICE_PASSWORD": _hex,
    "TASK_SERVICE_PASSWORD": _hex,
    "TASK_WORKER_PASSWORD": _hex,
    "REDIS_PASSWORD": _hex,
    "GRAFANA_PASSWORD": _hex,
    "ELASTIC_PASSWORD": _hex,
    "KIBANA_PASSWORD": _hex,
}


def missing(text: str) -> list[str]:
    """Returns the names of the secrets that have no value in the text of a file."""
    # A comment in the place of the value is not a value.
    given = {match[1] for match in re.finditer(r"^([A-Z_]+)=[ \t]*[^\s#]", text, re.MULTILINE)}
    return [name for name in SECRETS if name not in given]


def completed(text: str) -> str:
    """Returns the text with a value for each secret. Fills an empty entry in place; appends a missing one."""
    for name in missing(text):
        line = f"{name}={SECRETS[name]()}"
        text, found = re.subn(rf"^{name}=.*$", line, text, count=1, flags=re.MULTILINE)
        if not found:
            gap = "" if not text or text.endswith("\n") else "\n"
            text = f"{text}{gap}{line}\n"
    return text


def make(file: Path) -> None:
    """Adds the missing secrets to the file. Only the owner can read the new file, and it replaces the old one atomically."""
    text = file.read_text(encoding="utf-8") if file.exists() else HEADER
    added = missing(text)
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as output:
        output.write(completed(text))
    draft.replace(file)
    sys.stdout.write(f"{file.name} has all secrets. Added: {', '.join(added) or 'none'}\n")


def check(file: Path) -> int:
    """Returns the exit status: 2, with a message, if `make env` has to run first."""
    if not file.exists():
        sys.stderr.write("There is no .env with the secrets. Run `make env` to create it.\n")
        return 2
    if lacking := missing(file.read_text(encoding="utf-8")):
        sys.stderr.write(f".env has no value for {', '.join(lacking)}. Run `make env`: it adds them and changes no existing value.\n")
        return 2
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["make"]:
        make(FILE)
    elif sys.argv[1:] == ["check"]:
        sys.exit(check(FILE))
    else:
        sys.exit("usage: env.py make | check")
