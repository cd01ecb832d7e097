"""The rules for new passwords (OWASP ASVS 5 §6.2, NIST SP 800-63B §3.1.1.2): bounds on the length, and no password that an attacker tries first.

There are no rules about classes of characters.
"""

import unicodedata
from collections.abc import Iterator
from typing import Final

from zxcvbn.frequency_lists import FREQUENCY_LISTS

from servicekit.errors import InvalidField

MIN_CHARACTERS: Final = 8
MAX_CHARACTERS: Final = 128


class PasswordRules:
    """The rules. Holds those of the 30 000 most common passwords that have at least MIN_CHARACTERS characters."""

    def __init__(self) -> None:
        self._common = frozenset(password for password in FREQUENCY_LISTS["passwords"] if len(password) >= MIN_CHARACTERS)

    def check(self, field: str, password: str, *, email: str, name: str) -> None:
        """Raises InvalidField for `field` if the account must not have this password. Comparisons ignore case."""
        normalized = normalize(password)
        if not MIN_CHARACTERS <= len(normalized) <= MAX_CHARACTERS:
            raise InvalidField.of(field, f"must have {MIN_CHARACTERS} to {MAX_CHARACTERS} characters")
        folded = normalized.casefold()
        if folded in self._common:
            raise InvalidField.of(field, "is one of the most common passwords: choose another")
        if folded in set(_own(email, name)):
            raise InvalidField.of(field, "must not be your email or your name")


def normalize(password: str) -> str:
    """Returns the password in NFC, in which it is counted and hashed: the same text typed on two keyboards is the same password."""
    return unicodedata.normalize("NFC", password)


def _own(email: str, name: str) -> Iterator[str]:
    """Yields what anyone who knows the user would try: the email, its local part, the name with and without spaces; each also written twice."""
    for text in (email, email.partition("@")[0], name, "".join(name.split())):
        folded = normalize(text).casefold()
        yield folded
        yield folded * 2
