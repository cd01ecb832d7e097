"""The text of an API token: `tm_`, 43 characters of base62 with 256 random bits, and 6 with the CRC-32 of everything before them.

By the checksum a typo is refused without a look-up, and a secret scanner tells tokens from other texts. The checksum is no secret. Only the SHA-256
of the text is stored, which no search can reverse for so many random bits.
"""

import hashlib
import re
import secrets
import zlib
from typing import Final

PREFIX: Final = "tm_"
DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
RANDOM_BITS: Final = 256
# The fewest digits that hold 256 bits, and 32 bits.
RANDOM_DIGITS: Final = 43
CHECKSUM_DIGITS: Final = 6
# docs/security.md gives this pattern to secret scanners.
PATTERN: Final = r"tm_[0-9A-Za-z]{49}"
# The prefix and four random digits: enough to recognize one of 50 tokens, and 232 bits stay secret.
HINT_CHARACTERS: Final = 7

_FORM: Final = re.compile(PATTERN)


def new_api_token() -> str:
    """Returns the text of a new API token."""
    body = PREFIX + _base62(secrets.randbits(RANDOM_BITS), RANDOM_DIGITS)
    return body + _checksum(body)


def is_well_formed(token: str) -> bool:
    """Whether the text has the form of an API token, with the right checksum."""
    return _FORM.fullmatch(token) is not None and token[-CHECKSUM_DIGITS:] == _checksum(token[:-CHECKSUM_DIGITS])


def api_token_hash(token: bytes) -> bytes:
    """Returns the hash that is stored instead of the API token. `token` is its text in ASCII."""
    return hashlib.sha256(token).digest()


def hint_of(token: str) -> str:
    """Returns the part of the token that its owner sees."""
    return token[:HINT_CHARACTERS]


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), CHECKSUM_DIGITS)


def _base62(number: int, digits: int) -> str:
    found = []
    for _ in range(digits):
        number, digit = divmod(number, len(DIGITS))
        found.append(DIGITS[digit])
    return "".join(reversed(found))
