"""The schema and its functions keep to what Citus executes too (docs/citus.md). Each rule finds a planted example.

The rules are about the schema as all migrations leave it, and about the statements of the migrations after 0010, which may run on distributed tables.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from servicekit.stores.postgres import Database
from servicekit.stores.statements import statements

MIGRATIONS = Path(__file__).parents[2] / "task_service" / "migrations"
# The first migration after which the tables may be distributed.
LAST_BEFORE = 10
# They have one row each and stay on the coordinator, except for the first one, of which each server has a copy.
ONE_ROW = {"feed", "cache_state", "deletions"}

FUNCTIONS = "SELECT p.oid::regprocedure::text AS name, prosrc AS body FROM pg_proc AS p WHERE pronamespace = 'task'::regnamespace"
TRIGGERS = "SELECT tgname FROM pg_trigger JOIN pg_class AS c ON c.oid = tgrelid WHERE relnamespace = 'task'::regnamespace"
# The unique indexes whose first column is not user_id. A foreign key has triggers, so the query above finds it.
UNIQUE = """
    SELECT c.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = indrelid JOIN pg_attribute AS a ON attrelid = indrelid AND attnum = indkey[0]
     WHERE relnamespace = 'task'::regnamespace AND indisunique AND attname <> 'user_id'
"""
SEQUENCES = "SELECT relname FROM pg_class WHERE relnamespace = 'task'::regnamespace AND relkind = 'S'"

Rule = tuple[Callable[[str], object], str]

_COMMENT = re.compile(r"--[^\n]*")
_TABLE = r"task\.(?:tasks|counters|changes|task_labels|idempotency_keys)"
_ALIAS = re.compile(rf"{_TABLE}\s+AS\s+(\w+)")


def _has_rows_as_values(sql: str) -> bool:
    """Whether the name of a table or its alias stands where a column could: neither before a dot nor before a list of columns."""
    if re.search(rf"[(,]\s*{_TABLE}\s*[),]", sql):
        return True
    return any(re.search(rf"(?<!AS )(?<![.\w]){alias}\b(?!\s*[.(])", sql) for alias in _ALIAS.findall(sql))


# What a statement in a function must not have, with an example of each.
IN_FUNCTIONS: dict[str, Rule] = {
    "writes within a WITH": (
        re.compile(r"\bWITH\b.*\bAS\b[^(]*\(\s*(INSERT|UPDATE|DELETE)\b", re.DOTALL).search,
        "WITH made AS (INSERT INTO task.tasks (id) SELECT 1 RETURNING id) SELECT * FROM made",
    ),
    "locks rows of several users": (
        re.compile(r"^(?!.*user_id = p_user).*\bFOR (NO KEY )?(UPDATE|SHARE|KEY SHARE)\b", re.DOTALL).search,
        "SELECT id FROM task.tasks LIMIT 1 FOR UPDATE SKIP LOCKED",
    ),
    "has a row of a table as a value": (_has_rows_as_values, "INSERT INTO task.tasks AS t (id) VALUES (1) RETURNING t.id, t AS task"),
    "passes a row to a statement": (
        re.compile(r"\b(INSERT INTO|UPDATE)\s+task\.[^;]*\bto_jsonb\((v|p|o)_\w+\)").search,
        "INSERT INTO task.changes (user_id, snapshot) VALUES (p_user, to_jsonb(v_task))",
    ),
}
# What a statement of a later migration must not have.
IN_MIGRATIONS: dict[str, Rule] = {
    "is a trigger": (
        re.compile(r"\bCREATE (OR REPLACE )?(CONSTRAINT )?TRIGGER\b").search,
        "CREATE TRIGGER t AFTER INSERT ON task.tasks EXECUTE FUNCTION f()",
    ),
    "changes the rows of all users from another table": (
        re.compile(rf"\bUPDATE {_TABLE}[^;]*\bFROM\b").search,
        "UPDATE task.counters AS c SET pending = 1 FROM counted WHERE counted.user_id = c.user_id",
    ),
    "creates an index that cannot be created in a transaction": (
        re.compile(r"\bINDEX CONCURRENTLY\b").search,
        "CREATE INDEX CONCURRENTLY i ON task.tasks (id)",
    ),
    "adds a column with a value that differs between servers": (
        re.compile(r"\bADD COLUMN\b[^;]*\bDEFAULT (gen_random_uuid|clock_timestamp|random|nextval)\b").search,
        "ALTER TABLE task.tasks ADD COLUMN other uuid NOT NULL DEFAULT gen_random_uuid()",
    ),
}


def breaks(sql: str, rules: Mapping[str, Rule]) -> list[str]:
    """Returns the rules that a statement breaks."""
    text = _COMMENT.sub("", sql)
    return [rule for rule, (finds, _) in rules.items() if finds(text)]


@pytest.mark.parametrize("rule", IN_FUNCTIONS)
def test_a_rule_about_functions_finds_its_example(rule: str) -> None:
    assert breaks(IN_FUNCTIONS[rule][1], IN_FUNCTIONS) == [rule]


@pytest.mark.parametrize("rule", IN_MIGRATIONS)
def test_a_rule_about_migrations_finds_its_example(rule: str) -> None:
    assert breaks(IN_MIGRATIONS[rule][1], IN_MIGRATIONS) == [rule]


async def test_the_functions_keep_the_rules(database: Database) -> None:
    broken = {}
    for function in await database.fetch(FUNCTIONS):
        found = [rule for statement in function["body"].split(";") for rule in breaks(statement, IN_FUNCTIONS)]
        if found:
            broken[function["name"]] = found
    assert broken == {}


async def test_the_tables_keep_the_rules(database: Database) -> None:
    assert await database.fetch(TRIGGERS) == []
    assert await database.fetch(SEQUENCES) == []
    assert {row["relname"] for row in await database.fetch(UNIQUE)} == ONE_ROW | {"schema_migrations"}


def _later() -> Iterator[Path]:
    return (path for path in sorted(MIGRATIONS.glob("*.sql")) if int(path.name[:4]) > LAST_BEFORE)


def test_the_migrations_after_the_first_that_citus_executes_keep_the_rules() -> None:
    assert [(path.name, found) for path in _later() for one in statements(path.read_text()) if (found := breaks(one, IN_MIGRATIONS))] == []
