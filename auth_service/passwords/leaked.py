"""The most used passwords of those that have leaked: a file of digests, which LEAKED.md describes.

The file is mapped into memory, so that a process reads only the pages that it looks at, and all processes of a machine share them.

`python -m auth_service.passwords.leaked LIST…` writes the file from lists with one password a line.
"""

import hashlib
import mmap
import sys
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from auth_service.passwords.domain import MIN_CHARACTERS, normalize

FILE: Final = Path(__file__).with_name("leaked.bin")
# With 65 544 digests of 40 bits, one of 16 million other passwords has a digest of the file.
DIGEST_BYTES: Final = 5


class LeakedPasswords:
    """The passwords whose digests are in the file, without regard to case."""

    def __init__(self, file: Path = FILE) -> None:
        with file.open("rb") as opened:
            self._digests = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self._digests) // DIGEST_BYTES

    def __contains__(self, password: str) -> bool:
        digest = digest_of(password)
        place = bisect_left(range(len(self)), digest, key=self._digest)
        return place < len(self) and self._digest(place) == digest

    def _digest(self, place: int) -> bytes:
        return self._digests[place * DIGEST_BYTES : (place + 1) * DIGEST_BYTES]


def digest_of(password: str) -> bytes:
    """Returns the digest by which the file has a password."""
    return hashlib.sha256(normalize(password).casefold().encode()).digest()[:DIGEST_BYTES]


def encoded(passwords: Iterable[str]) -> bytes:
    """Returns the content of the file for these passwords. Leaves out those that are too short to be a password here."""
    return b"".join(sorted({digest_of(password) for password in passwords if len(normalize(password)) >= MIN_CHARACTERS}))


if __name__ == "__main__":
    FILE.write_bytes(encoded(line for name in sys.argv[1:] for line in Path(name).read_text(encoding="utf-8").splitlines()))
