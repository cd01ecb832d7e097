"""An account and its credentials: plain values, independent of storage and wire format."""

import unicodedata
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

# The fields of an account that its user can change, by their names in the API.
WRITABLE_FIELDS: Final = ("name",)


@dataclass(frozen=True, slots=True)
class User:
    """An account as the API returns it. Times are aware, in UTC."""

    id: UUID
    email: str
    name: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a password is verified against. `password_version` grows by one with each change of the password, not with a rehash."""

    user_id: UUID
    email: str
    name: str
    password_hash: str
    password_version: int


def email_key(email: str) -> str:
    """Returns the form in which emails are compared. Emails that differ only in case are equal."""
    return unicodedata.normalize("NFC", email).casefold()
