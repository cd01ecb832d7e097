"""The secrets of docker-compose.yml, in `.env` beside it: `env.py make` makes those that are missing, `env.py check` names them.

It never changes or prints one that is there. Only the standard library: it runs before anything is installed.
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
HEADER: Final = "# Made by `make env`; private. Whatever else .env.example has can be set here as well.\n"


def _hex() -> str:
    """For what becomes part of a URL."""
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
    "REDIS_PASSWORD": _hex,
    "GRAFANA_PASSWORD": _hex,
    "ELASTIC_PASSWORD": _hex,
    "KIBANA_PASSWORD": _hex,
}


def missing(text: str) -> list[str]:
    """The secrets that a file's text gives no value."""
    # A value may be followed by a comment, which is none.
    given = {match[1] for match in re.finditer(r"^([A-Z_]+)=[ \t]*[^\s#]", text, re.MULTILINE)}
    return [name for name in SECRETS if name not in given]


def completed(text: str) -> str:
    """The text with a value for each secret: in its place where an empty one stands, else at the end."""
    for name in missing(text):
        line = f"{name}={SECRETS[name]()}"
        text, found = re.subn(rf"^{name}=.*$", line, text, count=1, flags=re.MULTILINE)
        if not found:
            gap = "" if not text or text.endswith("\n") else "\n"
            text = f"{text}{gap}{line}\n"
    return text


def make(file: Path) -> None:
    """Writes what is missing. The file is private from its first byte on, and either as it was or whole."""
    text = file.read_text(encoding="utf-8") if file.exists() else HEADER
    added = missing(text)
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as output:
        output.write(completed(text))
    draft.replace(file)
    sys.stdout.write(f"{file.name} has all secrets; new: {', '.join(added) or 'none'}\n")


def check(file: Path) -> int:
    """The exit status: 2 when there is something to do first, which is said."""
    if not file.exists():
        sys.stderr.write("There is no .env, which holds the secrets: make it with `make env`.\n")
        return 2
    if lacking := missing(file.read_text(encoding="utf-8")):
        sys.stderr.write(f".env lacks {', '.join(lacking)}: add what is missing with `make env`, which changes nothing that is there.\n")
        return 2
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["make"]:
        make(FILE)
    elif sys.argv[1:] == ["check"]:
        sys.exit(check(FILE))
    else:
        sys.exit("usage: env.py make | check")
