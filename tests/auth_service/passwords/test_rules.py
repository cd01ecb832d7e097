"""Which passwords are accepted. The length is counted in characters after NFC, and no rule requires classes of characters."""

import pytest
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from auth_service.passwords.rules import PasswordRules, normalize
from servicekit.errors import InvalidField

RULES = PasswordRules()
DECOMPOSED, COMPOSED = "e\N{COMBINING ACUTE ACCENT}", "\N{LATIN SMALL LETTER E WITH ACUTE}"


def complaint(password: str, *, email: str = "ada.lovelace@example.com", name: str = "Ada Lovelace") -> str:
    """Returns what is wrong with a password, or an empty text if it is accepted."""
    try:
        RULES.check("new_password", password, email=email, name=name)
    except InvalidField as error:
        (violation,) = error.violations
        assert violation.field == "new_password"
        return violation.description
    return ""


@pytest.mark.parametrize("password", ["", "kV3xq9z", "x" * 129, DECOMPOSED * 7, COMPOSED * 7, DECOMPOSED * 129, "\N{GRINNING FACE}" * 7])
def test_out_of_bounds_is_refused_with_the_bounds(password: str) -> None:
    assert complaint(password) == "must have 8 to 128 characters"


@pytest.mark.parametrize("password", ["kV3xq9z!", "xy" * 64, DECOMPOSED * 8, DECOMPOSED * 128, COMPOSED * 128, "\N{GRINNING FACE}" * 8, " " * 9])
def test_the_bounds_are_counted_in_characters_after_nfc(password: str) -> None:
    assert complaint(password) == ""


@pytest.mark.parametrize(
    "password", ["correct horse battery", "nothing but letters", "8402958377201938", "mixed with: \N{CJK UNIFIED IDEOGRAPH-4E2D}"]
)
def test_there_are_no_rules_of_composition(password: str) -> None:
    assert complaint(password) == ""


def test_a_text_typed_in_two_ways_is_one() -> None:
    assert normalize(DECOMPOSED) == normalize(COMPOSED) == COMPOSED


@pytest.mark.parametrize("password", ["password", "12345678", "iloveyou", "football1", "qwertyuiop"])
def test_the_common_ones_are_refused_in_any_case(password: str) -> None:
    for typed in (password, password.upper(), password.capitalize()):
        assert complaint(typed).startswith("is one of the most common passwords")
    assert complaint(password + " of mine") == ""


def test_so_many_are_refused_of_those_that_are_long_enough() -> None:
    """All of the 10 000 most common passwords, and at least 10 000 passwords of eight or more characters."""
    most_common = FREQUENCY_LISTS["passwords"][:10_000]
    assert not [password for password in most_common if not complaint(password.upper())]
    refused = {password for password in FREQUENCY_LISTS["passwords"] if complaint(password).startswith("is one of the most common")}
    assert len(refused) >= 10_000
    assert {len(password) >= 8 for password in refused} == {True}


@pytest.mark.parametrize(
    "password",
    [
        "ada.lovelace@example.com",
        "ADA.Lovelace@Example.com",
        "ada.lovelace",
        "Ada.Lovelace",
        "ada.lovelaceada.lovelace",
        "Ada Lovelace",
        "ada lovelace",
        "adalovelace",
        "AdaLovelaceAdaLovelace",
        "Ada LovelaceAda Lovelace",
    ],
)
def test_what_is_known_of_the_user_is_refused(password: str) -> None:
    assert complaint(password) == "must not be your email or your name"


def test_a_short_name_twice_is_refused_and_what_only_contains_it_is_not() -> None:
    assert complaint("adaladal", email="x@example.com", name="Adal") == "must not be your email or your name"
    assert complaint("adalovelace was here") == ""


def test_the_name_is_compared_in_either_form() -> None:
    forms = ((DECOMPOSED * 8, COMPOSED * 8), (COMPOSED * 8, DECOMPOSED * 8), (COMPOSED.upper() * 8, DECOMPOSED * 8))
    # In Unicode, a letter may become two letters in the other case, or have another form at the end of a word.
    folded = (("Gro\N{LATIN SMALL LETTER SHARP S} Stra\N{LATIN SMALL LETTER SHARP S}e", "GROSS STRASSE"), ("ΟΔΥΣΣΕΥΣ", "οδυσσευς"))
    for name, password in (*forms, *folded):
        assert complaint(password, name=name) == "must not be your email or your name"
