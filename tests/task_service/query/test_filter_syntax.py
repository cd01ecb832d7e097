"""The meaning of filters, and the errors of invalid filters with the character at which each error is."""

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.errors import InvalidField
from task_service.query.domain import AllOf, AnyOf, Comparison, Condition, Field, Operator, Status
from task_service.query.filter_syntax import KEYWORDS, MAX_COMPARISONS, MAX_DEPTH, parse_filter

A = Comparison(Field.PRIORITY, Operator.EQUAL, 1)
B = Comparison(Field.PRIORITY, Operator.EQUAL, 2)
C = Comparison(Field.PRIORITY, Operator.EQUAL, 3)
NOT_A, NOT_B = (Comparison(term.field, term.operator, term.value, negated=True) for term in (A, B))
NAMES = {"a": "priority=1", "b": "priority=2", "c": "priority=3"}
NOON = datetime(2026, 12, 31, 12, tzinfo=UTC)
MIDNIGHT = datetime(2026, 12, 31, tzinfo=UTC)


def _condition(text: str) -> Condition:
    parsed = parse_filter(text)
    assert parsed is not None
    assert parsed.text == text
    return parsed.condition


def _refusal(text: str) -> str:
    with pytest.raises(InvalidField) as caught:
        parse_filter(text)
    (violation,) = caught.value.violations
    assert violation.field == "filter"
    return violation.description


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_a_blank_filter_is_none(text: str) -> None:
    assert parse_filter(text) is None


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("a", A),
        ("((a))", A),
        ("a AND b", AllOf((A, B))),
        ("a b", AllOf((A, B))),
        ("a b AND c", AllOf((A, B, C))),
        ("a OR b", AnyOf((A, B))),
        ("a OR b AND c", AllOf((AnyOf((A, B)), C))),
        ("a AND b OR c", AllOf((A, AnyOf((B, C))))),
        ("a b OR c", AllOf((A, AnyOf((B, C))))),
        ("(a AND b) OR c", AnyOf((AllOf((A, B)), C))),
        ("a OR (b OR c)", AnyOf((A, B, C))),
        ("a (b c)", AllOf((A, B, C))),
        ("NOT a", NOT_A),
        ("-a", NOT_A),
        ("- a b", AllOf((NOT_A, B))),
        ("NOT a OR b", AnyOf((NOT_A, B))),
        ("NOT(a OR b)", AllOf((NOT_A, NOT_B))),
        ("-(a b)", AnyOf((NOT_A, NOT_B))),
        ("NOT (-a)", A),
        ("NOT (a OR NOT (b c))", AllOf((NOT_A, B, C))),
        ("(a)(b)", AllOf((A, B))),
    ],
)
def test_how_comparisons_are_joined(text: str, condition: Condition) -> None:
    assert _condition("".join(NAMES.get(sign, sign) for sign in text)) == condition


@pytest.mark.parametrize(
    ("text", "field", "operator", "value"),
    [
        ("title = Plan", Field.TITLE, Operator.EQUAL, "Plan"),
        ('title="two words"', Field.TITLE, Operator.EQUAL, "two words"),
        ("title:'it is \"so\"'", Field.TITLE, Operator.HAS, 'it is "so"'),
        (r'title:"a \"b\" \\ \c"', Field.TITLE, Operator.HAS, r'a "b" \ c'),
        ('title:"two\nlines"', Field.TITLE, Operator.HAS, "two\nlines"),
        ("title:don't", Field.TITLE, Operator.HAS, "don't"),
        ("title != -x", Field.TITLE, Operator.NOT_EQUAL, "-x"),
        ('title:""', Field.TITLE, Operator.HAS, ""),
        ('title:"*"', Field.TITLE, Operator.HAS, "*"),
        ("title:ANDROID", Field.TITLE, Operator.HAS, "ANDROID"),
        ('title:"AND"', Field.TITLE, Operator.HAS, "AND"),
        ("description:50%_off,now", Field.DESCRIPTION, Operator.HAS, "50%_off,now"),
        ("labels:später", Field.LABELS, Operator.HAS, "später"),
        ("status = PENDING", Field.STATUS, Operator.EQUAL, Status.PENDING),
        ("status != in_Progress", Field.STATUS, Operator.NOT_EQUAL, Status.IN_PROGRESS),
        ('status="completed"', Field.STATUS, Operator.EQUAL, Status.COMPLETED),
        ("priority>=5", Field.PRIORITY, Operator.GREATER_OR_EQUAL, 5),
        ("priority < 2", Field.PRIORITY, Operator.LESS, 2),
        ("due_date > 2026-12-31", Field.DUE_DATE, Operator.GREATER, MIDNIGHT),
        ('due_date <= "2026-12-31"', Field.DUE_DATE, Operator.LESS_OR_EQUAL, MIDNIGHT),
        ("created_at=2026-12-31T12:00:00Z", Field.CREATED_AT, Operator.EQUAL, NOON),
        ("updated_at=2026-12-31T14:00:00.000000+02:00", Field.UPDATED_AT, Operator.EQUAL, NOON),
        ("completed_at!='2026-12-31T12:00:00.0000009Z'", Field.COMPLETED_AT, Operator.NOT_EQUAL, NOON),
        ("deleted_at < 0001-01-01", Field.DELETED_AT, Operator.LESS, datetime(1, 1, 1, tzinfo=UTC)),
        ("due_date:*", Field.DUE_DATE, Operator.PRESENT, None),
        ("labels : *", Field.LABELS, Operator.PRESENT, None),
    ],
)
def test_comparisons(text: str, field: Field, operator: Operator, value: object) -> None:
    assert _condition(text) == Comparison(field, operator, value)  # type: ignore[arg-type]  # the parameters above


A_VALUE = "a value must stand here"
A_COMPARISON = "a comparison must stand here"
NOT_HERE = "must not stand here"


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("plan", 1, '"plan" must have a field before it and an operator, such as title:"plan"'),
        ('status=PENDING "my plan"', 16, 'such as title:"my plan"'),
        ("due_date", 1, "due_date must have an operator and a value behind it, such as due_date:*"),
        ("priority=1 and priority=2", 12, "AND must be in capitals"),
        ("priority=1 or priority=2", 12, "OR must be in capitals"),
        ("not priority=1", 1, "NOT must be in capitals"),
        ("owner = me", 1, '"owner" must be one of the fields title, description, status'),
        ("TITLE = me", 1, '"TITLE" must be one of the fields'),
        ("task.title = me", 1, '"task.title" must be one of the fields'),
        ("user_id = me", 1, '"user_id" must be one of the fields'),
        ("status = DONE", 10, 'status must be one of PENDING, IN_PROGRESS, COMPLETED, not "DONE"'),
        ("status = 1", 10, "must be one of PENDING"),
        ("status = pend\u0131ng", 10, "must be one of PENDING"),
        ("status = STATUS_UNSPECIFIED", 10, "must be one of PENDING"),
        ("status < PENDING", 8, "status must be compared with one of = != :*, not <"),
        ("status:PENDING", 7, "status must be compared with one of = != :*, not :"),
        ("title > a", 7, "title must be compared with one of = != : :*, not >"),
        ("labels = work", 8, "labels must be compared with one of : :*, not ="),
        ("due_date:2026-12-31", 9, "due_date must be compared with one of = != < <= > >= :*, not :"),
        ("due_date = *", 12, "* must stand behind : alone, or in quotes"),
        ("priority = high", 12, 'priority must be a whole number from 1 to 5, not "high"'),
        ("priority = 6", 12, "from 1 to 5"),
        ("priority = 1.0", 12, "from 1 to 5"),
        ("priority = \u0663", 12, "from 1 to 5"),
        ("due_date = tomorrow", 12, "due_date must be a time such as 2026-12-31T12:00:00Z, or a date such as 2026-12-31"),
        ("due_date = 2026-02-30", 12, "must be a time"),
        ("due_date = 2026-12-31T12:00:00", 12, "must be a time"),
        ('due_date = "2026-12-31 12:00:00Z"', 12, "must be a time"),
        ("due_date = 2026-12-31T12:00:60Z", 12, "must be a time"),
        ("due_date = 2026-12-31t12:00:00z", 12, "must be a time"),
        ("due_date = 2026-12-31T12:00:00+00:60", 12, "must be a time"),
        ("due_date = 2026-12-31T12:00:00.0000000001Z", 12, "must be a time"),
        ("due_date = 20261231", 12, "must be a time"),
        ("due_date = 2026-W01", 12, "must be a time"),
        ("due_date = 0000-01-01", 12, "must be a time"),
        ("due_date = 0001-01-01T00:00:00+01:00", 12, "must be a time"),
        ("due_date = 9999-12-31T23:59:59-01:00", 12, "must be a time"),
        ("title =", 8, A_VALUE),
        ("title = AND priority=1", 9, A_VALUE),
        ("title = (a OR b)", 9, A_VALUE),
        ("priority == 1", 11, A_VALUE),
        ("priority=1 AND", 15, A_COMPARISON),
        ("priority=1 OR OR priority=2", 15, A_COMPARISON),
        ("NOT NOT priority=1", 5, A_COMPARISON),
        ("--priority=1", 2, A_COMPARISON),
        ("AND", 1, A_COMPARISON),
        ("()", 2, A_COMPARISON),
        ("*", 1, A_COMPARISON),
        ("(priority=1", 12, "a parenthesis must be closed"),
        ("priority=1)", 11, f") {NOT_HERE}"),
        ("title:a:b", 8, f": {NOT_HERE}"),
        ("title:wow!", 10, f"! {NOT_HERE}"),
        ("title:pla*", 10, f"* {NOT_HERE}"),
        ('title:"plan', 7, 'the " must be closed'),
        ("title:'plan\\'", 7, "the ' must be closed"),
        ("title:𝄞 owner=me", 9, '"owner" must be one of the fields'),
    ],
)
def test_a_filter_that_means_nothing_is_refused_at_the_character(text: str, place: int, said: str) -> None:
    refusal = _refusal(text)
    assert refusal.startswith(f"at character {place}: "), refusal
    assert said in refusal


def test_a_filter_is_bounded_in_depth() -> None:
    assert _condition("(" * MAX_DEPTH + NAMES["a"] + ")" * MAX_DEPTH) == A
    assert _condition(" ".join(["(priority=1)"] * (MAX_DEPTH + 1))) == AllOf((A,) * (MAX_DEPTH + 1))
    assert _refusal("(" * (MAX_DEPTH + 1) + NAMES["a"]) == f"at character {MAX_DEPTH + 1}: parentheses must be at most {MAX_DEPTH} deep"
    assert _refusal("-(" * 990).startswith(f"at character {2 * MAX_DEPTH + 2}: ")


def test_a_filter_is_bounded_in_comparisons() -> None:
    assert _condition(" OR ".join([NAMES["a"]] * MAX_COMPARISONS)) == AnyOf((A,) * MAX_COMPARISONS)
    refusal = _refusal(" ".join([NAMES["a"]] * (MAX_COMPARISONS + 1)))
    assert refusal == f"at character {11 * MAX_COMPARISONS + 9}: a filter must have at most {MAX_COMPARISONS} comparisons"


def test_an_error_quotes_no_more_than_a_part_of_a_long_word() -> None:
    assert len(_refusal("x" * 1900 + "=1")) < 350
    assert len(_refusal("title:" + '"x" "' + "y" * 1900 + '"')) < 250


SIGNS = [*KEYWORDS, *(field.value for field in Field), *(operator.value for operator in Operator), *"()-*\"'\\", "PENDING", "2026-12-31", "3"]


@given(st.text(max_size=100) | st.lists(st.sampled_from(SIGNS) | st.text(max_size=3), max_size=60).map(" ".join))
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    said = ""
    try:
        parse_filter(text)
    except InvalidField as error:
        said = error.violations[0].description
    if said:
        place = re.match(r"at character ([0-9]+): .", said)
        assert place is not None
        assert 1 <= int(place[1]) <= len(text) + 1
