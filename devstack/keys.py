"""The secrets of a data directory: made once, kept in files of mode 0600, never printed."""

import base64
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Keys:
    """What the stack gives to its processes."""

    signing_key: str
    page_token_key: str
    postgres_password: str


def load_or_create(directory: Path) -> Keys:
    """Reads the secrets below the directory and makes those that are missing."""
    directory.mkdir(mode=0o700, exist_ok=True)
    return Keys(
        signing_key=_kept(directory / "signing_key.pem", _ed25519_pem),
        page_token_key=_kept(directory / "page_token_key", lambda: base64.b64encode(secrets.token_bytes(32)).decode()),
        postgres_password=_kept(directory / "postgres_password", lambda: secrets.token_urlsafe(24)),
    )


def _kept(path: Path, make: Callable[[], str]) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        value = make()
        write_private(path, value)
        return value


def write_private(path: Path, text: str) -> None:
    """Writes a file of mode 0600 that is either there in full or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)


def _ed25519_pem() -> str:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - only the first start pays for it
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - as above

    return (
        Ed25519PrivateKey.generate()
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        .decode()
    )
