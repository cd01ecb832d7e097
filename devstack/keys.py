"""The secrets of a data directory: generated once, stored in files of mode 0600, never printed."""

import base64
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from devstack.errors import UsageProblem
from devstack.roles import MIGRATOR, PROGRAMS, SUPERUSER


@dataclass(frozen=True, slots=True)
class Keys:
    """The secrets that the stack gives to its processes. `passwords` maps each login role of the database to its password."""

    key_encryption_key: str
    page_token_key: str
    service_token: str
    passwords: Mapping[str, str]


def load_or_create(directory: Path) -> Keys:
    """Reads the secrets in the directory and generates the missing ones."""
    directory.mkdir(mode=0o700, exist_ok=True)
    return Keys(
        key_encryption_key=_kept(directory / "key_encryption_key", _random_key),
        page_token_key=_kept(directory / "page_token_key", _random_key),
        service_token=_kept(directory / "service_token", lambda: secrets.token_urlsafe(32)),
        passwords={role: _kept(password_file(directory, role), lambda: secrets.token_urlsafe(24)) for role in (SUPERUSER, MIGRATOR, *PROGRAMS)},
    )


def load(directory: Path) -> Keys:
    """Reads the secrets of a stack that was started before. Raises UsageProblem if the directory is not a stack's."""
    if not password_file(directory, MIGRATOR).exists():
        raise UsageProblem(f"{directory.parent} is not the data directory of a stack: start one first, with `make run`")
    return load_or_create(directory)


def password_file(directory: Path, role: str) -> Path:
    """Returns the path of the file with the password of a database role."""
    return directory / f"{role}_password"


def _random_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def _kept(path: Path, make: Callable[[], str]) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        value = make()
        write_private(path, value)
        return value


def write_private(path: Path, text: str) -> None:
    """Writes a file of mode 0600 atomically."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)
