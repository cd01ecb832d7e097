"""Page tokens: valid only unchanged, and only for the caller and the query that they were issued for."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servicekit.errors import InvalidPageToken
from servicekit.rpc.paging import Key, page_tokens

SECRET = "a secret of thirty-two characters"
QUERY: list[Key] = ["ListTasks", "user-1", None, 3]

keys = st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20), max_size=5)


@given(position=keys, query=keys)
def test_a_token_gives_back_its_position(position: list[Key], query: list[Key]) -> None:
    assert page_tokens(SECRET).open(page_tokens(SECRET).seal(position, query), query) == position


@settings(max_examples=300)
@given(data=st.data())
def test_any_mutation_is_refused(data: st.DataObject) -> None:
    tokens = page_tokens(SECRET)
    sealed = base64.urlsafe_b64decode((token := tokens.seal([1, "x"], QUERY)) + "=" * (-len(token) % 4))
    kind = data.draw(st.sampled_from(["flip", "cut", "add", "swap"]))
    at = data.draw(st.integers(0, len(sealed) - 1))
    mutated = {
        "flip": bytes([*sealed[:at], sealed[at] ^ data.draw(st.integers(1, 255)), *sealed[at + 1 :]]),
        "cut": sealed[:at],
        "add": sealed[:at] + data.draw(st.binary(min_size=1, max_size=5)) + sealed[at:],
        "swap": sealed[at:] + sealed[:at],
    }[kind]
    if mutated == sealed:
        return
    with pytest.raises(InvalidPageToken):
        tokens.open(base64.urlsafe_b64encode(mutated).rstrip(b"=").decode(), QUERY)


@settings(max_examples=200)
@given(st.text(max_size=200))
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidPageToken):
        page_tokens(SECRET).open(text, QUERY)


@pytest.mark.parametrize("token", ["", "A", "AAAA", "A" * 16, "A" * 2048, "====", "𝄞", "\0", "a b", "../.."])
def test_known_bad_texts_are_refused(token: str) -> None:
    with pytest.raises(InvalidPageToken):
        page_tokens(SECRET).open(token, QUERY)


@pytest.mark.parametrize(
    "other",
    [
        ["ListTasks", "user-2", None, 3],
        ["ListTasks", "user-1", 1, 3],
        ["ListTasks", "user-1", None, 4],
        ["ListTasks", "user-1", None],
        ["Other", *QUERY[1:]],
        [],
    ],
    ids=["user", "status", "priority", "shorter", "method", "nothing"],
)
def test_a_token_is_bound_to_its_query(other: list[Key]) -> None:
    tokens = page_tokens(SECRET)
    token = tokens.seal([1], QUERY)
    with pytest.raises(InvalidPageToken):
        tokens.open(token, other)
    assert tokens.open(token, QUERY) == [1]


def test_neighbouring_values_of_a_query_do_not_run_together() -> None:
    tokens = page_tokens(SECRET)
    with pytest.raises(InvalidPageToken):
        tokens.open(tokens.seal([1], ["a", "b,c"]), ["a,b", "c"])
    with pytest.raises(InvalidPageToken):
        tokens.open(tokens.seal([1], ["1"]), [1])


def test_a_token_of_another_secret_is_refused() -> None:
    with pytest.raises(InvalidPageToken):
        page_tokens(SECRET).open(page_tokens(SECRET + "!").seal([1], QUERY), QUERY)


def test_a_token_tells_nothing() -> None:
    token = page_tokens(SECRET).seal(["a secret title"], QUERY)
    assert b"secret" not in base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    assert token != page_tokens(SECRET).seal(["a secret title"], QUERY)
