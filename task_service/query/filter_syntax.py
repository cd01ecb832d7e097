"""Parses filters as clients write them (AIP-160) into conditions. Independent of SQL.

OR binds tighter than AND. Adjacent comparisons are joined by AND. NOT and - negate. The language is narrower than AIP-160: a word without a field is
rejected, and a value is one word or one quoted text.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final, NoReturn

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedToken, v_args
from lark.lark import PostLex

from servicekit.errors import InvalidField
from task_service.query.domain import Comparison, Condition, Field, Filter, Operator, all_of, any_of, negation, operators_of, shape_of
from task_service.query.filter_values import WrongValue, value_of

# More than a person writes, and few enough to be cheap for the parser and for PostgreSQL's planner.
MAX_DEPTH: Final = 16
MAX_COMPARISONS: Final = 50
# Most clients use few filters. A filter of the maximum size takes about 20 KB.
CACHED_FILTERS: Final = 256
# Error messages quote at most this many characters of a word.
SHOWN_CHARACTERS: Final = 40

# A word may contain an apostrophe (don't), and a time contains colons. Any other value with a character of the grammar must be quoted.
GRAMMAR: Final = r"""
    ?start: conjunction
    conjunction: disjunction (_AND? disjunction)*
    disjunction: term (_OR term)*
    ?term: simple | (_NOT | _MINUS) simple -> negation
    ?simple: comparison | bare | _OPEN conjunction _CLOSE
    comparison: WORD OPERATOR (VALUE | TEXT | STAR)
    bare: WORD | TEXT

    _AND: "AND"
    _OR: "OR"
    _NOT: "NOT"
    _MINUS: "-"
    _OPEN: "("
    _CLOSE: ")"
    STAR: "*"
    OPERATOR: /<=|>=|!=|[<>=:]/
    WORD: /[^\s()"'<>=!:*\-][^\s()"<>=!:*]*/
    VALUE: /[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][^\s()"']*|[^\s()"'<>=!:*][^\s()"<>=!:*]*/
    TEXT: /"([^"\\]|\\.)*"|'([^'\\]|\\.)*'/s
    %ignore /\s+/
"""
KEYWORDS: Final = frozenset({"AND", "OR", "NOT"})
A_COMPARISON: Final = "a comparison must stand here, such as status = PENDING"
NOT_HERE: Final = "must not stand here; if it is of a value, the value goes in quotes"
_FIELD_NAMES: Final = tuple(field.value for field in Field)


@lru_cache(CACHED_FILTERS)
def parse_filter(text: str) -> Filter | None:
    """Returns the filter, or None if the text is blank. Raises InvalidField, which names the character of the error, counted from 1."""
    if not text.strip():
        return None
    try:
        condition: Condition = _PARSER.parse(text)
        return Filter(text, condition, *shape_of(condition))
    except UnexpectedCharacters as error:
        _refuse_character(text, error.pos_in_stream)  # type: ignore[arg-type]  # the lexer always sets the position
    except UnexpectedToken as error:
        _refuse_token(text, error.token, error.expected)


class _Bounds(PostLex):
    """Enforces MAX_DEPTH and MAX_COMPARISONS while the text is read, before the parser sees the tokens."""

    always_accept = ()

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        depth = comparisons = 0
        for token in stream:
            depth += (token.type == "_OPEN") - (token.type == "_CLOSE")
            comparisons += token.type == "OPERATOR"
            if depth > MAX_DEPTH:
                _refuse(_place(token), f"parentheses must be at most {MAX_DEPTH} deep")
            if comparisons > MAX_COMPARISONS:
                _refuse(_place(token), f"a filter must have at most {MAX_COMPARISONS} comparisons")
            yield token


@v_args(inline=True)
class _Conditions(Transformer[Token, Condition]):
    """Builds the condition of each rule of the grammar."""

    def conjunction(self, *terms: Condition) -> Condition:
        return all_of(terms)

    def disjunction(self, *terms: Condition) -> Condition:
        return any_of(terms)

    def negation(self, term: Condition) -> Condition:
        return negation(term)

    def comparison(self, name: Token, sign: Token, value: Token) -> Condition:
        field = _field(name)
        operator = _operator(field, sign, value)
        if operator is Operator.PRESENT:
            return Comparison(field, operator, None)
        try:
            return Comparison(field, operator, value_of(field, _text(value)))
        except WrongValue as error:
            _refuse(_place(value), f"{name} {error}, not {_shown(value)}")

    def bare(self, word: Token) -> NoReturn:
        if word in KEYWORDS:
            _refuse(_place(word), A_COMPARISON)
        if word.upper() in KEYWORDS:
            _refuse(_place(word), f"{word.upper()} must be in capitals")
        if word in _FIELD_NAMES:
            _refuse(_place(word), f"{word} must have an operator and a value behind it, such as {word}:*")
        example = word if word.type == "TEXT" else f'"{word}"'
        _refuse(_place(word), f"{_shown(word)} must have a field before it and an operator, such as title:{_cut(example)}")


def _field(name: Token) -> Field:
    try:
        return Field(name.value)
    except ValueError:
        _refuse(_place(name), f"{_shown(name)} must be one of the fields {', '.join(_FIELD_NAMES)}")


def _operator(field: Field, sign: Token, value: Token) -> Operator:
    operator = Operator.PRESENT if value.type == "STAR" and sign == Operator.HAS.value else Operator(sign.value)
    allowed = (*operators_of(field), Operator.PRESENT)
    if operator not in allowed:
        _refuse(_place(sign), f"{field.value} must be compared with one of {' '.join(each.value for each in allowed)}, not {sign}")
    if operator is not Operator.PRESENT and value.type == "STAR":
        _refuse(_place(value), f"* must stand behind {Operator.HAS.value} alone, or in quotes")
    return operator


def _text(value: Token) -> str:
    if value.type == "VALUE":
        if value in KEYWORDS:
            _refuse(_place(value), f"a value must stand here; if {value} is the value, in quotes")
        return str(value)
    # A backslash escapes the next character.
    return _ESCAPE.sub(r"\1", value[1:-1])


def _refuse_character(text: str, index: int) -> NoReturn:
    sign = text[index]
    if sign in {'"', "'"}:
        _refuse(index + 1, f"the {sign} must be closed")
    _refuse(index + 1, f"{sign} {NOT_HERE}")


def _refuse_token(text: str, token: Token, expected: set[str]) -> NoReturn:
    at_end = token.type == "$END"
    place = len(text) + 1 if at_end else _place(token)
    if "VALUE" in expected:
        _refuse(place, "a value must stand here: a word, or a text in quotes")
    if "WORD" in expected and not expected & {"_CLOSE", "$END"}:
        _refuse(place, A_COMPARISON)
    if at_end:
        _refuse(place, "a parenthesis must be closed")
    _refuse(place, f"{_cut(token)} {NOT_HERE}")


def _refuse(place: int, what: str) -> NoReturn:
    raise InvalidField.of("filter", f"at character {place}: {what}")


def _place(token: Token) -> int:
    assert token.start_pos is not None
    return token.start_pos + 1


def _shown(token: Token) -> str:
    return _cut(token) if token.type == "TEXT" else f'"{_cut(token)}"'


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_PARSER: Any = Lark(GRAMMAR, parser="lalr", transformer=_Conditions(), postlex=_Bounds())
