"""Reads the token from the Authorization header."""

import pytest

from servicekit.errors import TokenInvalid, TokenMissing
from servicekit.identity import bearer_token


@pytest.mark.parametrize("value", ["Bearer abc", "bearer abc", "BEARER abc", "Bearer  abc", "bearer   abc", " Bearer abc", "Bearer abc \t"])
def test_the_scheme_is_read_without_case_and_blanks_do_not_matter(value: str) -> None:
    assert bearer_token(value) == "abc"


@pytest.mark.parametrize("value", [None, "", " ", " \t "])
def test_no_header_is_a_missing_token(value: str | None) -> None:
    with pytest.raises(TokenMissing):
        bearer_token(value)


@pytest.mark.parametrize(
    "value", ["Bearer", "Bearer ", "Bearer  ", "Basic abc", "abc", "Bearer a b", "Bearer\tabc", "Bearer \tabc", "Bearer a, Bearer a"]
)
def test_a_header_of_another_form_is_an_invalid_token(value: str) -> None:
    with pytest.raises(TokenInvalid):
        bearer_token(value)
