"""An account and what its password is checked against. Plain values; knows no storage and no wire format."""

import unicodedata
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

# The fields of an account that its user sets, by their names in the API.
WRITABLE_FIELDS: Final = ("name",)


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
    """What a password is checked against. `password_version` grows with each change of it."""

    user_id: UUID
    email: str
    name: str
    password_hash: str
    password_version: int


def email_key(email: str) -> str:
    """The form in which emails are matched: two that differ only in case are one."""
    return unicodedata.normalize("NFC", email).casefold()
