"""The text of a password, and the interface of password hashing that the use cases need."""

import unicodedata
from typing import Final, Protocol

MIN_CHARACTERS: Final = 8
MAX_CHARACTERS: Final = 128


def normalize(password: str) -> str:
    """Returns the password in NFC, in which it is counted and hashed: the same text typed on two keyboards is the same password."""
    return unicodedata.normalize("NFC", password)


class Passwords(Protocol):
    """Hashes and compares passwords: see auth_service.passwords.hasher.PasswordHasher."""

    async def hash(self, password: str) -> str:
        """Returns the hash to store. Raises Overloaded."""

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Returns whether the password matches the hash; False for None. Raises Overloaded."""

    def is_outdated(self, password_hash: str) -> bool:
        """Returns whether the password must be hashed again, because its scheme is old or its cost too low."""
