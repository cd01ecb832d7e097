"""The schema and its functions keep to what Citus executes too (docs/citus.md). Each rule finds planted examples.

The rules are about the schema as all migrations leave it, and about the statements of the migrations after 0010, which may run on distributed tables.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from servicekit.stores.postgres import Database
from tests.task_service.citus_rules import IN_FUNCTIONS, IN_MIGRATIONS, broken_by_function, broken_by_migration

MIGRATIONS = Path(__file__).parents[2] / "task_service" / "migrations"
# The first migration after which the tables may be distributed.
LAST_BEFORE = 10
# They have one row each and stay on the coordinator, except for the first one, of which each server has a copy.
ONE_ROW = {"feed", "cache_state", "deletions"}

FUNCTIONS = """
    SELECT oid::regprocedure::text AS name, coalesce(pg_get_function_sqlbody(oid), prosrc) AS body
      FROM pg_proc WHERE pronamespace = 'task'::regnamespace
"""
# What the schema must not have, by what it is called there. A foreign key has triggers. The first column of an index on an expression is null.
SCHEMA = {
    "triggers": "SELECT tgname FROM pg_trigger JOIN pg_class AS c ON c.oid = tgrelid WHERE relnamespace = 'task'::regnamespace",
    "rules": "SELECT r.rulename FROM pg_rewrite AS r JOIN pg_class AS c ON c.oid = ev_class WHERE relnamespace = 'task'::regnamespace",
    "sequences": "SELECT relname FROM pg_class WHERE relnamespace = 'task'::regnamespace AND relkind = 'S'",
    "partitioned tables": "SELECT relname FROM pg_class WHERE relnamespace = 'task'::regnamespace AND relkind = 'p'",
    "tables without a primary key": """
        SELECT relname FROM pg_class AS c WHERE relnamespace = 'task'::regnamespace AND relkind = 'r'
           AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary)
    """,
    "unique indexes that do not begin with user_id": """
        SELECT c.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = indrelid
          LEFT JOIN pg_attribute AS a ON attrelid = indrelid AND attnum = indkey[0] AND attnum > 0
         WHERE relnamespace = 'task'::regnamespace AND (indisunique OR indisexclusion) AND attname IS DISTINCT FROM 'user_id'
    """,
}
PLANTED = {
    "triggers": "CREATE TRIGGER bad BEFORE UPDATE ON task.tasks FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "rules": "CREATE RULE bad AS ON DELETE TO task.tasks DO INSTEAD NOTHING",
    "sequences": "CREATE SEQUENCE task.bad",
    "partitioned tables": "CREATE TABLE task.bad (user_id uuid PRIMARY KEY) PARTITION BY RANGE (user_id)",
    "tables without a primary key": "CREATE TABLE task.bad (user_id uuid, body text)",
    "unique indexes that do not begin with user_id": "CREATE UNIQUE INDEX ON task.tasks (lower(title), user_id)",
}


@pytest.fixture
async def broken_schema(database_url: str, request: pytest.FixtureRequest) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection that sees the schema with what the parameter names, until the test ends."""
    connection = await asyncpg.connect(database_url)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(PLANTED[request.param])
    yield connection
    await transaction.rollback()
    await connection.close()


@pytest.mark.parametrize(("rule", "example"), [(rule, example) for rule, (_, examples) in IN_FUNCTIONS.items() for example in examples])
def test_a_rule_about_functions_finds_its_examples(rule: str, example: str) -> None:
    assert broken_by_function(f"BEGIN PERFORM 1; {example}; END") == [rule]


@pytest.mark.parametrize(("rule", "example"), [(rule, example) for rule, (_, examples) in IN_MIGRATIONS.items() for example in examples])
def test_a_rule_about_migrations_finds_its_examples(rule: str, example: str) -> None:
    assert broken_by_migration(f"-- ' a comment; \nSELECT 1; {example};") == [rule]


@pytest.mark.parametrize(("what", "broken_schema"), [(what, what) for what in SCHEMA], indirect=["broken_schema"])
async def test_a_rule_about_tables_finds_its_example(what: str, broken_schema: "asyncpg.Connection[asyncpg.Record]") -> None:
    found = {row[0] for row in await broken_schema.fetch(SCHEMA[what])}
    assert found - ONE_ROW - {"schema_migrations"}


@pytest.mark.parametrize(
    "allowed",
    [
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON task.tasks (user_id, version)",
        "ALTER TABLE task.tasks ADD CONSTRAINT v CHECK (version > 0) NOT VALID",
        "ALTER TABLE task.cache_state ADD COLUMN x integer CHECK (x >= 0)",
        "UPDATE task.tasks SET updated_at = greatest(now(), updated_at), title = lower(title)",
        "DELETE FROM task.changes WHERE at < now() - interval '7 days'",
        "UPDATE task.counters AS c SET pending = n.n FROM (SELECT user_id, count(*) AS n FROM task.tasks GROUP BY 1) n WHERE n.user_id = c.user_id",
        "DELETE FROM task.tasks AS t USING task.counters AS c WHERE c.user_id = t.user_id AND c.closed_at IS NOT NULL",
        "PERFORM FROM task.account_removals WHERE user_id = v_one FOR UPDATE SKIP LOCKED",
        "SELECT t.* INTO v_row FROM task.tasks AS t WHERE user_id = p_user LIMIT 1",
        "DO $$ BEGIN UPDATE task.tasks SET version = 2 WHERE user_id = v_user; END $$",
    ],
)
def test_what_citus_executes_is_allowed(allowed: str) -> None:
    assert broken_by_migration(allowed) == []


async def test_the_functions_keep_the_rules(database: Database) -> None:
    functions = await database.fetch(FUNCTIONS)
    assert {function["name"]: found for function in functions if (found := broken_by_function(function["body"]))} == {}


async def test_the_tables_keep_the_rules(database: Database) -> None:
    found = {what: {row[0] for row in await database.fetch(sql)} for what, sql in SCHEMA.items()}
    assert found == {what: set() for what in SCHEMA} | {"unique indexes that do not begin with user_id": ONE_ROW | {"schema_migrations"}}


def _later() -> Iterator[Path]:
    return (path for path in sorted(MIGRATIONS.glob("*.sql")) if int(path.name[:4]) > LAST_BEFORE)


def test_the_migrations_after_the_first_that_citus_executes_keep_the_rules() -> None:
    assert {path.name: found for path in _later() if (found := broken_by_migration(path.read_text()))} == {}
