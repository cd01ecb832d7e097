"""The interface of password hashing that the use cases need."""

from typing import Protocol


class Passwords(Protocol):
    """Hashes and compares passwords: see auth_service.passwords.hasher.PasswordHasher."""

    async def hash(self, password: str) -> str:
        """Returns the hash to store. Raises Overloaded."""

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Returns whether the password matches the hash; False for None. Raises Overloaded."""

    def is_outdated(self, password_hash: str) -> bool:
        """Returns whether the password must be hashed again, because its scheme is old or its cost too low."""
