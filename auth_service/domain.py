"""What an account is, and what makes an email and a password good ones. Plain values; knows no storage and no wire format."""

import unicodedata
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from servicekit.errors import InvalidField

MIN_PASSWORD_CHARACTERS: Final = 8
MAX_PASSWORD_CHARACTERS: Final = 128


@dataclass(frozen=True, slots=True)
class User:
    """An account as it is shown. Times are aware, in UTC."""

    id: UUID
    email: str
    name: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a login is checked against."""

    user_id: UUID
    password_hash: str


@dataclass(frozen=True, slots=True)
class Session:
    """A session that was begun or carried on."""

    id: UUID
    user_id: UUID


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What a client gets for a session. `expires_in` is the access token's time, in seconds."""

    access_token: str
    expires_in: int
    refresh_token: str


def email_key(email: str) -> str:
    """The form in which emails are matched: two that differ only in case are one."""
    return unicodedata.normalize("NFC", email).casefold()


def normalize_password(password: str) -> str:
    """The form in which passwords are hashed: one text typed on two keyboards is one password (NFC, as in NIST SP 800-63B §3.1.1.2)."""
    return unicodedata.normalize("NFC", password)


def check_new_password(password: str) -> None:
    """Raises InvalidField unless a normalised password is 8 to 128 characters long. There are no rules of composition."""
    if not MIN_PASSWORD_CHARACTERS <= len(password) <= MAX_PASSWORD_CHARACTERS:
        raise InvalidField.of("password", f"must have {MIN_PASSWORD_CHARACTERS} to {MAX_PASSWORD_CHARACTERS} characters")
