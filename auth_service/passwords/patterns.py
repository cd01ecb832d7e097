"""Passwords that follow a pattern: a short text repeated, or sequences of the alphabet, of digits or of the keyboard."""

from itertools import pairwise
from typing import Final

# A password has at least this number of pieces: a piece is a sequence, a repeated character, or any other single character.
MIN_PIECES: Final = 4
# Shorter ones occur in many words.
MIN_SEQUENCE: Final = 3
# The rows and columns of the keyboards QWERTY, QWERTZ and AZERTY.
KEYBOARDS: Final = (
    *("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm", "qwertzuiop", "yxcvbnm", "azertyuiop", "qsdfghjklm", "wxcvbn"),
    *("1qaz", "2wsx", "3edc", "4rfv", "5tgb", "6yhn", "7ujm", "1qay", "6zhn", "1aqw", "2zsx", "йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю"),
)


def _steps() -> dict[tuple[str, str], frozenset[str]]:
    """Returns the lines of the keyboards on which the second character follows the first one, each with its direction."""
    steps: dict[tuple[str, str], frozenset[str]] = {}
    for keys in KEYBOARDS:
        for line, name in ((keys, keys), (keys[::-1], f"-{keys}")):
            for pair in pairwise(line):
                steps[pair] = steps.get(pair, frozenset()) | {name}
    return steps


_STEPS: Final = _steps()


def repeated(text: str) -> str:
    """Returns the shortest text that is repeated in the whole text, or the text itself. The last repetition may be cut off: `abcabcab` is `abc`."""
    lengths = (length for length in range(1, len(text) // 2 + 1) if text[length:] == text[:-length])
    return text[: next(lengths, len(text))]


def pieces(text: str) -> int:
    """Returns the number of sequences, repeated characters and other single characters of which the text consists."""
    count = place = 0
    while place < len(text):
        count += 1
        place += max(_same(text, place), _sequence(text, place))
    return count


def _same(text: str, start: int) -> int:
    """Returns how often the character at `start` is repeated."""
    end = start
    while end < len(text) and text[end] == text[start]:
        end += 1
    return end - start


def _sequence(text: str, start: int) -> int:
    """Returns the length of the sequence that begins at `start`, or 1 if it is too short to be one."""
    end, lines = start + 1, _lines(text[start : start + 2])
    while lines:
        end += 1
        lines &= _lines(text[end - 1 : end + 1])
    return end - start if end - start >= MIN_SEQUENCE else 1


def _lines(pair: str) -> frozenset[str]:
    """Returns what the two characters can be a part of: the alphabet or the digits, in either direction, and the lines of a keyboard."""
    if len(pair) < 2:
        return frozenset()
    first, second = pair[0], pair[1]
    lines = _STEPS.get((first, second), frozenset())
    if first.isalnum() and second.isalnum() and abs(ord(second) - ord(first)) == 1:
        lines |= {"up" if second > first else "down"}
    return lines
