"""Arbitrary text of any size as email, password and refresh token: no call ends with a server error, and no wrong password is accepted."""

import unicodedata
from collections.abc import Awaitable, Callable, Mapping
from uuid import uuid4

import grpc.aio
import httpx
import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from auth_service.passwords.rules import PasswordRules
from gateway.uploads import PUBLIC_BYTES
from servicekit.errors import InvalidField
from tests.support.accounts import PASSWORD, Account
from tests.support.calls import message_of, rest_refusal, rpc_call, transcoded
from tests.support.descriptors import Rpc, named
from tests.support.errors import ApiError
from tests.support.tiers import SLOW

MEBIBYTE = 1 << 20
# A little less than the gateway's limits. Bodies can exceed it because a control character takes six bytes in JSON.
MAX_BODY_BYTES = 3 * MEBIBYTE - 1000
# The gRPC codes that map to HTTP 5xx.
FAULTS = {grpc.StatusCode[name].value[0] for name in ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")}
REGISTER, LOGIN, REFRESH = named("AuthService.Register"), named("AuthService.Login"), named("AuthService.RefreshToken")
MIN_CHARACTERS, MAX_CHARACTERS, BCRYPT_BYTES = 8, 128, 72
NAME = "Ada"

bounded = settings(max_examples=60)
# Each example makes a registration and two logins, and each of these calls computes a hash.
fewer = settings(bounded, max_examples=40)

# Characters that a component may treat as a terminator, as another character, as two characters, or drop.
TRICKY = "\\\"'%;\r\n \0\x01\x1b\x7f\x85\xad\u0130\u0301\u0345\u200b\u200d\u202e\u2028\ufb01\ufdfa\ufeff\ufffd\uffff"
TRICKY += "\U0001d15e\U0001f600\U000e0001\U0010ffff"


def filled(piece: str, size: int) -> str:
    """Returns the piece repeated, cut to at most `size` bytes."""
    return (piece * (size // len(piece.encode()) + 1)).encode()[:size].decode(errors="ignore")


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


characters = st.sampled_from(TRICKY) | st.characters(exclude_categories=("Cs",))
pieces = st.text(characters, max_size=40)
sizes = st.sampled_from([0, 1, 71, 72, 73, 128, 129, 254, 255, 512, 513, 4096, 4097, 65_536, MEBIBYTE - 1, MEBIBYTE])
# A piece once, or repeated up to a size in bytes.
texts = pieces | st.builds(filled, pieces.filter(bool), sizes)
emails = texts | st.builds(lambda local: f"{local}@example.com", texts) | st.uuids().map(lambda id_: f"{id_.hex}@example.com")
RULES = PasswordRules()


def _is_accepted(password: str) -> bool:
    try:
        RULES.check("password", password, email="", name=NAME)
    except InvalidField:
        return False
    return True


# Passwords that the rules accept.
passwords = st.text(characters, min_size=MIN_CHARACTERS, max_size=MAX_CHARACTERS).filter(_is_accepted)


Send = Callable[[Rpc, Mapping[str, str]], Awaitable[ApiError | None]]


@pytest.fixture(scope="module", params=["rest", pytest.param("gateway", marks=SLOW), pytest.param("direct", marks=SLOW)])
def send(request: pytest.FixtureRequest, rest: httpx.AsyncClient, gateway_channel: grpc.aio.Channel, auth_channel: grpc.aio.Channel) -> Send:
    """Returns a function that makes a call by one of the ways in. It returns the error, which must be a client error, or None."""
    channel = {"gateway": gateway_channel, "direct": auth_channel}.get(request.param)

    async def by_rest(rpc: Rpc, values: Mapping[str, str]) -> ApiError | None:
        # tests.gateway.test_uploads covers bodies that are too large for the gateway; such calls may end without an answer.
        if len(httpx.Request("POST", "/", json=values).content) >= (MAX_BODY_BYTES if rpc.is_authenticated else PUBLIC_BYTES - 1000):
            reject()
        return await rest_refusal(rest, transcoded(rpc, message_of(rpc, values)))

    async def by_grpc(rpc: Rpc, values: Mapping[str, str]) -> ApiError | None:
        answer = await rpc_call(channel, rpc, message_of(rpc, values))
        error = answer if isinstance(answer, ApiError) else None
        assert error is None or error.code not in FAULTS, error
        return error

    return by_grpc if channel else by_rest


@bounded
@given(email=emails, password=texts, name=texts)
async def test_any_registration(send: Send, email: str, password: str, name: str) -> None:
    await send(REGISTER, {"email": email, "password": password, "name": name})


@bounded
@given(email=emails, password=texts)
async def test_any_login(send: Send, email: str, password: str) -> None:
    error = await send(LOGIN, {"email": email, "password": password})
    assert error is not None
    assert error.reason in {"INVALID_FIELD", "INVALID_CREDENTIALS", "TOO_MANY_ATTEMPTS"}


@bounded
@given(token=texts)
async def test_any_refresh_token(send: Send, token: str) -> None:
    error = await send(REFRESH, {"refresh_token": token})
    assert error is not None
    assert error.reason in {"INVALID_FIELD", "REFRESH_TOKEN_INVALID"}


@bounded
@given(data=st.data())
async def test_no_other_text_is_taken_for_a_refresh_token(send: Send, account: Account, data: st.DataObject) -> None:
    """Especially no text that starts with the token, whatever its size."""
    token = account.refresh_token
    variants = [token[:-1], token[1:], token.swapcase(), f" {token}", f"{token}\0", f"{token}=", f"{token}\n"]
    longer = texts.filter(bool).map(lambda text: token + text)
    other = data.draw(st.sampled_from(variants) | longer | characters.map(lambda character: token[:-1] + character))
    assume(other != token)
    error = await send(REFRESH, {"refresh_token": other})
    assert error is not None
    assert error.reason in {"INVALID_FIELD", "REFRESH_TOKEN_INVALID"}


@fewer
@given(password=passwords, data=st.data())
async def test_no_other_password_opens_an_account(send: Send, password: str, data: st.DataObject) -> None:
    other = data.draw(_others(password))
    assume(nfc(other) != nfc(password))
    await _assert_opens(send, await _registered(send, password), password, other)


LONG = "".join(chr(ord("a") + i * i % 29 % 26) for i in range(MAX_CHARACTERS))
FOUR_BYTES = "".join(chr(0x1F600 + i * i % 61) for i in range(MAX_CHARACTERS))

# Two different passwords that a faulty implementation may treat as equal.
PAIRS: Mapping[str, tuple[str, str]] = {
    "behind 72 bytes": (LONG[:BCRYPT_BYTES] + "one", LONG[:BCRYPT_BYTES] + "two"),
    "72 bytes and more": (LONG[:BCRYPT_BYTES], LONG[: BCRYPT_BYTES + 1]),
    "more and 72 bytes": (LONG[: BCRYPT_BYTES + 1], LONG[:BCRYPT_BYTES]),
    "last of 128": (LONG, LONG[:-1] + "_"),
    "128 and 127": (LONG, LONG[:-1]),
    "last of 128 of four bytes each": (FOUR_BYTES, FOUR_BYTES[:-1] + "\U0001f680"),
    "behind a NUL": ("before it\0behind it", "before it\0another"),
    "up to a NUL": ("before it\0behind it", "before it"),
    "NUL at the end": ("before it\0", "before it"),
    "NULs at the end": ("before it" + "\0" * MIN_CHARACTERS, "before it" + "\0" * (MIN_CHARACTERS + 1)),
    "after NULs": ("\0" * MIN_CHARACTERS + "behind it", "\0" * MIN_CHARACTERS + "another"),
    "case": ("Correct Horse", "correct horse"),
    "space at the end": ("correct horse ", "correct horse"),
    "line end": ("correct horse\n", "correct horse"),
    "accent": ("correct h\u00f6rse", "correct horse"),
    "compatible letters": ("\ufb01ne horses", "fine horses"),
    "full width": ("\uff43\uff4f\uff52\uff52\uff45\uff43\uff54", "correct"),
    "invisible": ("correct\u200bhorse", "correcthorse"),
    "what cannot be read": ("correct \ufffd horse", "correct ? horse"),
}
# Two encodings of the same password.
SAME: Mapping[str, tuple[str, str]] = {
    "composed, decomposed": ("caf\u00e9 au lait", "cafe\u0301 au lait"),
    "decomposed, composed": ("cafe\u0301 au lait", "caf\u00e9 au lait"),
    "two marks in another order": ("a\u0323\u0307 horse, a battery", "a\u0307\u0323 horse, a battery"),
    "singleton": ("\u212bngstr\u00f6m's horse", "\u00c5ngstr\u00f6m's horse"),
    "hangul": ("\u1112\u1161\u11ab\u1100\u1173\u11af horses", "\ud55c\uae00 horses"),
    "128 after NFC": ("e\u0301a\u0301o\u0301u\u0301xkqz" * 16, "\u00e9\u00e1\u00f3\u00faxkqz" * 16),
}


@pytest.mark.parametrize(("password", "other"), PAIRS.values(), ids=PAIRS)
async def test_two_passwords_that_are_alike_are_two(send: Send, password: str, other: str) -> None:
    # Passwords that are too short get a suffix, so that the pair is tested as well.
    password, other = (text if len(password) >= MIN_CHARACTERS else f"{text} horses" for text in (password, other))
    await _assert_opens(send, await _registered(send, password), password, other)


@pytest.mark.parametrize(("password", "same"), SAME.values(), ids=SAME)
async def test_one_password_written_in_two_ways_is_one(send: Send, password: str, same: str) -> None:
    email = await _registered(send, password)
    assert await send(LOGIN, {"email": email, "password": same}) is None


async def test_what_is_said_of_faults_can_fail(send: Send, account: Account) -> None:
    """The same calls succeed with valid values."""
    email = await _registered(send, PASSWORD)
    assert await send(LOGIN, {"email": email, "password": PASSWORD}) is None
    assert await send(REFRESH, {"refresh_token": account.refresh_token}) is None
    error = await send(REGISTER, {"email": email, "password": PASSWORD, "name": NAME})
    assert error is not None
    assert error.reason == "EMAIL_TAKEN"


async def _registered(send: Send, password: str) -> str:
    email = f"{uuid4().hex}@example.com"
    error = await send(REGISTER, {"email": email, "password": password, "name": NAME})
    assert error is None, error
    return email


async def _assert_opens(send: Send, email: str, password: str, other: str) -> None:
    wrong = await send(LOGIN, {"email": email, "password": other})
    assert wrong is not None
    assert wrong.reason == "INVALID_CREDENTIALS"
    assert await send(LOGIN, {"email": email, "password": password}) is None


def _others(password: str) -> st.SearchStrategy[str]:
    """Passwords that differ slightly from one: in one character, by one character more or less, in case, in width, or cut at a NUL."""
    replaced = st.builds(lambda at, character: password[:at] + character + password[at + 1 :], st.integers(0, len(password) - 1), characters)
    variants = [password[:-1], password[1:], password[::-1], password.swapcase(), password.strip(), password.partition("\0")[0]]
    variants += [unicodedata.normalize("NFKC", password), password.encode()[:BCRYPT_BYTES].decode(errors="ignore")]
    return (
        replaced
        | st.sampled_from([variant for variant in variants if variant] or ["another password"])
        | characters.map(lambda character: password + character)
        | characters.map(lambda character: password[:-1] + character)
        | passwords
    )
