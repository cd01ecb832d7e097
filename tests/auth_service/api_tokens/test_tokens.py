"""The text of API tokens: its form, its checksum, and that nothing of it is predictable."""

import re
import string
import zlib
from pathlib import Path

import pytest

from auth_service.api_tokens.tokens import DIGITS, PATTERN, api_token_hash, hint_of, is_well_formed, new_api_token

SECURITY = Path(__file__).resolve().parents[3] / "docs" / "security.md"


def number_of(digits: str) -> int:
    """Returns the number that is written in base62."""
    number = 0
    for digit in digits:
        number = 62 * number + DIGITS.index(digit)
    return number


def test_a_token_has_the_form_of_the_contract() -> None:
    token = new_api_token()
    assert re.fullmatch(r"tm_[0-9A-Za-z]{43}[0-9A-Za-z]{6}", token)
    assert number_of(token[3:46]) < 2**256
    assert number_of(token[46:]) == zlib.crc32(token[:46].encode())
    assert is_well_formed(token)


def test_the_pattern_for_scanners_is_the_documented_one() -> None:
    assert f"`\\b{PATTERN}\\b`" in SECURITY.read_text(encoding="utf-8")
    assert f"{DIGITS[0]}-{DIGITS[9]}{DIGITS[10]}-{DIGITS[35]}{DIGITS[36]}-{DIGITS[61]}" == "0-9A-Za-z"


def test_no_two_tokens_are_alike_and_every_digit_occurs() -> None:
    tokens = [new_api_token() for _ in range(500)]
    assert len({token[3:9] for token in tokens}) == len(tokens)
    for place in range(4, 46):
        assert len({token[place] for token in tokens}) > 50
    assert set("".join(tokens)) == set(string.digits + string.ascii_letters + "_")


def test_every_typo_is_found() -> None:
    """One wrong character, two exchanged ones, one too few or too many."""
    token = new_api_token()
    wrong = [token[:i] + ("x" if token[i] != "x" else "y") + token[i + 1 :] for i in range(len(token))]
    wrong += [token[:i] + token[i + 1] + token[i] + token[i + 2 :] for i in range(len(token) - 1) if token[i] != token[i + 1]]
    wrong += [token[:-1], token + "0", token[1:], token.lower(), token.upper(), f" {token}", f"{token}\n", ""]
    assert [text for text in wrong if text != token and is_well_formed(text)] == []


@pytest.mark.parametrize("text", ["tm_" + "0" * 49, "tm_" + "é" * 49, "tm_" + "-" * 49, "Tm_" + "0" * 49, "eyJhbGciOiJFZERTQSJ9.e30.x"])
def test_what_only_looks_like_a_token_is_none(text: str) -> None:
    assert not is_well_formed(text)


def test_the_hint_is_the_beginning_and_the_hash_that_of_the_whole() -> None:
    token = new_api_token()
    assert hint_of(token) == token[:7]
    assert len({api_token_hash(token.encode()), api_token_hash(token[:-1].encode()), api_token_hash(token.lower().encode())}) == 3
