"""Which passwords are accepted. The length is counted in characters after NFC, and no rule requires classes of characters."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from auth_service.passwords import leaked
from auth_service.passwords.domain import normalize
from auth_service.passwords.leaked import LeakedPasswords
from auth_service.passwords.patterns import pieces, repeated
from auth_service.passwords.rules import PasswordRules
from servicekit.errors import InvalidField

ROOT = Path(__file__).resolve().parents[3]
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


@pytest.mark.parametrize(
    "password",
    [
        "kV3xq9z!",
        "kV3xq9z!" * 16,
        f"{DECOMPOSED}a{DECOMPOSED}b{DECOMPOSED}n{DECOMPOSED}x",
        f"{COMPOSED}7{DECOMPOSED}k" * 31 + "ask!",
        "".join(chr(0x1F600 + 7 * number) for number in range(8)),
        " a sky  ",
    ],
)
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
    for typed in (password, password.upper(), password.capitalize(), password * 2, password * 3):
        assert complaint(typed).startswith("is one of the most common passwords")
    assert complaint(password + " of mine") == ""


# From the lists that are published each year.
VERY_COMMON = """
00000000 0123456789 0987654321 11111111 1111111111 11223344 112233445566 123123123 1234567890 12345678910 1234567891 123456789a 12345678
123456789 1234qwer 123abc123 123qwe123 147258369 1q2w3e4r 1q2w3e4r5t 1qaz2wsx 1qazxsw2 22222222 55555555 77777777 87654321 88888888
987654321 9876543210 99999999 a1234567 a12345678 a123456789 aa123456 aa12345678 aaaaaaaa abc12345 abcd1234 abcdefgh access14 admin123
administrator alexander asdasdasd asdf1234 asdfasdf asdfghjk asdfghjkl babygirl baseball basketball blink182 butterfly changeme charlie1
chocolate computer danielle dragon12 elizabeth facebook football football1 fuckyou1 google123 hello123 iloveyou iloveyou1 internet jennifer
jessica1 jonathan letmein1 linkedin liverpool lovelove michael1 michelle midnight minecraft monkey123 p@ssw0rd pa55word pa$$word pass1234
passport passw0rd password password1 password12 password123 password1234 pokemon1 princess princess1 q1w2e3r4 q1w2e3r4t5 qazwsx123 qazwsxedc
qqww1122 qwer1234 qwerty12 qwerty123 qwerty1234 qwertyui qwertyuiop samantha sunshine sunshine1 superman superman1 swordfish test1234
testtest trustno1 victoria welcome1 welcome123 whatever william1 zaq12wsx zxcvbnm1 zxcvbnm123
"""


def test_very_common_ones_are_refused() -> None:
    passwords = VERY_COMMON.split()
    assert len(passwords) > 113
    assert [password for password in passwords if not complaint(password)] == []


def test_so_many_are_refused_of_those_that_are_long_enough() -> None:
    """What LEAKED.md and docs/security.md say."""
    leaked = LeakedPasswords()
    said = f"{len(leaked):,}".replace(",", " ")
    assert len(leaked) > 65_000
    for document in (ROOT / "auth_service" / "passwords" / "LEAKED.md", ROOT / "docs" / "security.md"):
        assert f"{said} " in document.read_text(encoding="utf-8"), document
    # The list that is installed here is a part of it.
    most_common = [password for password in FREQUENCY_LISTS["passwords"] if len(password) >= 8]
    assert len(most_common) > 11_000
    assert not [password for password in most_common if password not in leaked or password.upper() not in leaked]
    assert not [password for password in most_common if not complaint(password)]


def test_the_file_of_digests_has_the_form_that_is_read(tmp_path: Path) -> None:
    digests = leaked.FILE.read_bytes()
    records = [digests[at : at + leaked.DIGEST_BYTES] for at in range(0, len(digests), leaked.DIGEST_BYTES)]
    assert records == sorted(set(records))
    file = tmp_path / "file"
    file.write_bytes(leaked.encoded(["Passwords", "passwords", "short", f"{DECOMPOSED}{'x' * 7}"]))
    few = LeakedPasswords(file)
    assert [password in few for password in ("PASSWORDS", f"{COMPOSED}xxxxxxx", "short", "password")] == [True, True, False, False]
    assert len(few) == 2


def test_other_passwords_are_not_taken_for_leaked_ones() -> None:
    leaked = LeakedPasswords()
    assert [number for number in range(20_000) if f"{number} horses in a battery" in leaked] == []


PATTERN = "must not be a short text repeated"


@pytest.mark.parametrize(
    "password",
    [
        # A text of less than 8 characters, repeated.
        *("ab" * 64, "abcabcabcab", "kV3xq9kV3xq9", "kV3xq9zkV3xq9zkV", " " * 9, "\N{GRINNING FACE}" * 8, COMPOSED * 128, DECOMPOSED * 8, "9" * 128),
        # Fewer than 4 pieces.
        *("abcdefghijkl", "zyxwvutsrq", "jklmnopq789", "2345678901", "5678defghi", "abcdefgh!", "aaaabbbbbbbb", "!!!!!!!!!!a", "абвгдежзик"),
        # Lines of a keyboard.
        *("lkjhgfdsaq", "2wsx3edc4rfv", "poiuytrewq0", "qwertzuiop12", "azertyuiop1", "йцукенгшщ", "mnbvcxzlkj"),
    ],
)
def test_repetitions_and_sequences_are_refused(password: str) -> None:
    for typed in (password, password.upper(), password[::-1]):
        assert complaint(typed).startswith((PATTERN, "is one of the most common")), typed


@pytest.mark.parametrize(
    "password", ["kV3xq9z!kV3xq9z!", "abc7xyz!uvw", "aabbccdd!x9", "four score and seven", "abcd and 1234!", "deferred", "hijacking"]
)
def test_a_part_of_a_password_may_be_a_sequence(password: str) -> None:
    assert complaint(password) == ""


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 0),
        ("a", 1),
        ("ab", 2),
        ("abc", 1),
        ("cba", 1),
        ("abd", 3),
        ("aa", 1),
        ("aab", 2),
        ("qwe", 1),
        ("ewq", 1),
        ("qwa", 3),
        ("abc321aaa", 3),
        ("xyza", 2),
    ],
)
def test_pieces(text: str, number: int) -> None:
    assert pieces(text) == number


@given(st.text("ab1", min_size=1, max_size=6), st.integers(1, 5), st.integers(0, 5))
def test_a_repetition_is_found_however_it_ends(unit: str, times: int, rest: int) -> None:
    found = repeated(unit * times + unit[:rest])
    assert len(found) <= len(unit) or times == 1
    assert (found * 40).startswith(unit * times + unit[:rest])


@pytest.mark.parametrize(("text", "unit"), [("abcabcab", "abc"), ("aaaa", "a"), ("abca", "abca"), ("abcdab", "abcdab"), ("abab", "ab"), ("a", "a")])
def test_a_repetition_is_a_whole_one_at_least_twice(text: str, unit: str) -> None:
    assert repeated(text) == unit


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
