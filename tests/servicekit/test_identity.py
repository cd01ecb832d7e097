"""Reads the token from the Authorization header."""

import pytest

from servicekit.errors import TokenInvalid, TokenMissing
from servicekit.identity import bearer_token


@pytest.mark.parametrize("value", ["Bearer abc", "bearer abc", "BEARER abc"])
def test_the_scheme_is_read_without_case(value: str) -> None:
    assert bearer_token(value) == "abc"


@pytest.mark.parametrize("value", [None, ""])
def test_no_header_is_a_missing_token(value: str | None) -> None:
    with pytest.raises(TokenMissing):
        bearer_token(value)


@pytest.mark.parametrize("value", ["Bearer", "Bearer ", "Basic abc", "abc", "Bearer  abc", "Bearer a b", " Bearer abc", "Bearer\tabc"])
def test_a_header_of_another_form_is_an_invalid_token(value: str) -> None:
    with pytest.raises(TokenInvalid):
        bearer_token(value)
