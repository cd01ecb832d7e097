"""The rules for new passwords (OWASP ASVS 5 §6.2, NIST SP 800-63B §3.1.1.2): bounds on the length, and no password that an attacker tries first.

There are no rules about classes of characters.
"""

from collections.abc import Iterator

from auth_service.passwords.domain import MAX_CHARACTERS, MIN_CHARACTERS, normalize
from auth_service.passwords.leaked import LeakedPasswords
from auth_service.passwords.patterns import MIN_PIECES, pieces, repeated
from servicekit.errors import InvalidField


class PasswordRules:
    """The rules, with the leaked passwords that they need."""

    def __init__(self) -> None:
        self._leaked = LeakedPasswords()

    def check(self, field: str, password: str, *, email: str, name: str) -> None:
        """Raises InvalidField for `field` if the account must not have this password. Comparisons ignore case."""
        normalized = normalize(password)
        if not MIN_CHARACTERS <= len(normalized) <= MAX_CHARACTERS:
            raise InvalidField.of(field, f"must have {MIN_CHARACTERS} to {MAX_CHARACTERS} characters")
        folded = normalized.casefold()
        unit = repeated(folded)
        if folded in self._leaked or unit in self._leaked:
            raise InvalidField.of(field, "is one of the most common passwords: choose another")
        if folded in set(_own(email, name)):
            raise InvalidField.of(field, "must not be your email or your name")
        if len(unit) < MIN_CHARACTERS or pieces(folded) < MIN_PIECES:
            raise InvalidField.of(field, "must not be a short text repeated or a sequence of the alphabet, of digits or of the keyboard")


def _own(email: str, name: str) -> Iterator[str]:
    """Yields what anyone who knows the user would try: the email, its local part, the name with and without spaces; each also written twice."""
    for text in (email, email.partition("@")[0], name, "".join(name.split())):
        folded = normalize(text).casefold()
        yield folded
        yield folded * 2
