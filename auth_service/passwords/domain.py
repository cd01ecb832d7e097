"""What use cases need of hashing passwords."""

from typing import Protocol


class Passwords(Protocol):
    """Hashes and compares passwords: see auth_service.passwords.hasher.PasswordHasher."""

    async def hash(self, password: str) -> str:
        """Raises Overloaded."""

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Raises Overloaded."""

    def is_outdated(self, password_hash: str) -> bool:
        """Whether it is to be hashed anew."""
