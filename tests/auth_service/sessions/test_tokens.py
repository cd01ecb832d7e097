"""The tokens of a session: what is stored of them, and which token decrypts a successor."""

import pytest
from cryptography.exceptions import InvalidTag

from auth_service.sessions.domain import REFRESH_GRACE_SECONDS
from auth_service.sessions.tokens import new_refresh_token, open_successor, refresh_token_hash, seal_successor


def test_a_successor_is_opened_by_the_token_that_it_follows_alone() -> None:
    token, successor = new_refresh_token(), new_refresh_token()
    sealed = seal_successor(token, successor)
    assert open_successor(token, sealed) == successor
    for other in (successor, new_refresh_token(), ""):
        with pytest.raises(InvalidTag):
            open_successor(other, sealed)
    assert seal_successor(token, successor) != sealed


def test_neither_the_hash_nor_the_seal_shows_a_token() -> None:
    token, successor = new_refresh_token(), new_refresh_token()
    kept = refresh_token_hash(token) + seal_successor(token, successor)
    assert token.encode() not in kept
    assert successor.encode() not in kept
    with pytest.raises(InvalidTag):
        open_successor(refresh_token_hash(token).hex(), seal_successor(token, successor))


def test_tokens_are_long_and_never_the_same() -> None:
    tokens = {new_refresh_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert {len(token) for token in tokens} == {43}


def test_the_grace_is_what_the_documents_promise() -> None:
    assert REFRESH_GRACE_SECONDS == 10.0
