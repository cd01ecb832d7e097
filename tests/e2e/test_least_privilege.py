"""The rights of the services' roles in the running system's database. The tests try every forbidden operation on every object in the catalog.

Every attempt is rolled back, so an attempt that succeeds fails its test but breaks nothing. The control tests execute allowed statements. They prove
that PostgreSQL rejects the others because a right is missing, not because the statement is invalid.
"""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from unittest.mock import ANY

import asyncpg
import pytest

from devstack.stack import Stack
from tests.support.databases import login

SCHEMAS = {"auth_service": "auth", "task_service": "task"}
OTHERS = {"auth_service": "task", "task_service": "auth"}

TABLES = """
    SELECT format('%I.%I', nspname, relname) AS name, (SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = c.oid AND attnum = 1) AS key
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
     WHERE nspname = $1 AND relkind IN ('r', 'p') ORDER BY 1
"""
ROUTINES = """
    SELECT p.oid::regprocedure::text AS signature, format('%I.%I', nspname, proname) AS name,
           ARRAY(SELECT format_type(type, NULL) FROM unnest(proargtypes) AS type) AS types
      FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = pronamespace
     WHERE nspname = $1 AND prokind = 'f' ORDER BY 1
"""
# The rights of role $2 on schema $1 and its objects, whether or not the role may use the schema.
RIGHTS = """
    SELECT DISTINCT privilege FROM (
        SELECT privilege
          FROM pg_class, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER', 'MAINTAIN']) AS privilege
         WHERE relnamespace = $1::text::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f') AND has_table_privilege($2::text, oid, privilege)
        UNION ALL
        SELECT 'EXECUTE' FROM pg_proc WHERE pronamespace = $1::text::regnamespace AND has_function_privilege($2::text, oid, 'EXECUTE')
        UNION ALL
        SELECT privilege FROM unnest(ARRAY['USAGE', 'CREATE']) AS privilege WHERE has_schema_privilege($2::text, $1::text, privilege)
    ) AS rights ORDER BY 1
"""
OWNERS = """
    SELECT DISTINCT owner::regrole::text FROM (
        SELECT oid, nspowner FROM pg_namespace
        UNION ALL SELECT relnamespace, relowner FROM pg_class
        UNION ALL SELECT pronamespace, proowner FROM pg_proc
        UNION ALL SELECT typnamespace, typowner FROM pg_type
    ) AS owned (schema, owner) WHERE schema = $1::text::regnamespace
"""

CREATIONS = [
    "CREATE TABLE {schema}.mine (id int)",
    "CREATE VIEW {schema}.mine AS SELECT 1 AS one",
    "CREATE SEQUENCE {schema}.mine",
    "CREATE TYPE {schema}.mine AS (id int)",
    "CREATE FUNCTION {schema}.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "ALTER SCHEMA {schema} RENAME TO mine",
    "DROP SCHEMA {schema} CASCADE",
]
OF_THE_SERVER = [
    "CREATE SCHEMA mine",
    "CREATE TEMPORARY TABLE mine (id int)",
    "CREATE TEMPORARY VIEW mine AS SELECT 1 AS one",
    "CREATE FUNCTION pg_temp.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE EXTENSION citext",
    "CREATE FOREIGN DATA WRAPPER mine",
    "CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE PUBLICATION mine FOR ALL TABLES",
    "CREATE ROLE mine",
    "DROP ROLE migrator",
    "SET ROLE migrator",
    "SET ROLE postgres",
    "SET ROLE {other}",
    "SET SESSION AUTHORIZATION postgres",
    "ALTER ROLE {role} SUPERUSER",
    "ALTER ROLE {role} CREATEROLE",
    "ALTER ROLE {role} CREATEDB",
    "ALTER ROLE {role} REPLICATION",
    "ALTER ROLE {role} BYPASSRLS",
    "ALTER ROLE {other} PASSWORD 'mine'",
    "ALTER ROLE migrator PASSWORD 'mine'",
    "ALTER ROLE postgres PASSWORD 'mine'",
    "GRANT migrator TO {role}",
    "GRANT pg_read_all_data TO {role}",
    "REASSIGN OWNED BY migrator TO {role}",
    "ALTER DEFAULT PRIVILEGES FOR ROLE migrator GRANT SELECT ON TABLES TO PUBLIC",
    "ALTER DATABASE taskmanager OWNER TO {role}",
    "ALTER DATABASE taskmanager SET log_statement = 'none'",
    "SET session_replication_role = 'replica'",
    "SELECT pg_read_file('postgresql.conf')",
    "SELECT pg_ls_dir('.')",
    "SELECT lo_import('/etc/passwd')",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "COPY (SELECT 1) TO '/tmp/mine'",
    "SELECT * FROM pg_authid",
    "SELECT * FROM pg_shadow",
    "SELECT * FROM pg_statistic",
    "SELECT * FROM pg_largeobject",
    "SELECT * FROM pg_hba_file_rules",
    "LOCK TABLE pg_authid",
    "SELECT pg_reload_conf()",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
]


@dataclass(frozen=True)
class Table:
    """A table and its first column."""

    name: str
    key: str

    @property
    def read(self) -> str:
        """A statement that reads the table."""
        return f"SELECT * FROM {self.name} LIMIT 1"

    @property
    def writes(self) -> list[str]:
        """Statements that write to the table, but change no row."""
        return [
            f"INSERT INTO {self.name} ({self.key}) SELECT {self.key} FROM {self.name} LIMIT 0",
            f"UPDATE {self.name} SET {self.key} = {self.key} WHERE false",
            f"DELETE FROM {self.name} WHERE false",
        ]

    @property
    def blind_writes(self) -> list[str]:
        """Writes that read nothing, so that they cannot fail for a missing right to read."""
        return [f"INSERT INTO {self.name} DEFAULT VALUES", f"UPDATE {self.name} SET {self.key} = DEFAULT", f"DELETE FROM {self.name}"]

    @property
    def changes(self) -> list[str]:
        """Statements that only the owner may execute."""
        return [
            f"TRUNCATE {self.name} CASCADE",
            f"ALTER TABLE {self.name} ADD COLUMN mine int",
            f"ALTER TABLE {self.name} DISABLE TRIGGER USER",
            f"ALTER TABLE {self.name} OWNER TO CURRENT_USER",
            f"CREATE INDEX ON {self.name} ({self.key})",
            f"CREATE TRIGGER mine BEFORE INSERT ON {self.name} EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            f"DROP TABLE {self.name} CASCADE",
        ]


@dataclass(frozen=True)
class Routine:
    """A database function."""

    signature: str
    name: str
    types: list[str]

    @property
    def call(self) -> str:
        """A statement that calls the function."""
        return f"SELECT {self.name}({', '.join(f'NULL::{kind}' for kind in self.types)})"

    @property
    def changes(self) -> list[str]:
        """Statements that only the owner may execute."""
        return [f"ALTER FUNCTION {self.signature} SECURITY DEFINER", f"DROP FUNCTION {self.signature} CASCADE"]


class Role:
    """A program's role, with a connection of its own and one of the superuser, who reads the catalog."""

    def __init__(self, name: str, itself: "asyncpg.Connection[asyncpg.Record]", superuser: "asyncpg.Connection[asyncpg.Record]") -> None:
        self.name, self.schema, self.other_schema = name, SCHEMAS.get(name, ""), OTHERS.get(name, "")
        self._itself = itself
        self._superuser = superuser

    async def tables(self, schema: str) -> list[Table]:
        """Returns the tables of a schema. Fails if there are none."""
        found = [Table(**row) for row in await self._superuser.fetch(TABLES, schema)]
        assert f"{schema}.schema_migrations" in {table.name for table in found}
        return found

    async def routines(self, schema: str) -> list[Routine]:
        """Returns the functions of a schema. Fails if there are none."""
        found = [Routine(**row) for row in await self._superuser.fetch(ROUTINES, schema)]
        assert found
        return found

    async def column(self, query: str, *arguments: str) -> list[str]:
        """Returns the first column of a query by the superuser."""
        return [row[0] for row in await self._superuser.fetch(query, *arguments)]

    async def count(self, query: str, *arguments: str) -> tuple[int, int]:
        """Returns the number of rows that the service's role sees, and the number that the superuser sees."""
        return len(await self._itself.fetch(query, *arguments)), len(await self._superuser.fetch(query, *arguments))

    async def analyze(self) -> None:
        """Makes PostgreSQL collect its statistics, which contain values of rows."""
        await self._superuser.execute("ANALYZE")

    async def outcome(self, statement: str) -> str:
        """Executes a statement as the service's role and rolls it back. Returns the SQLSTATE of its failure, or an empty text."""
        transaction = self._itself.transaction()
        await transaction.start()
        try:
            await self._itself.execute(statement)
        except asyncpg.PostgresError as error:
            return str(error.sqlstate)
        finally:
            await transaction.rollback()
        return ""

    async def outcomes_but(self, expected: str, statements: Iterable[str]) -> dict[str, str]:
        """Returns the statements with another outcome than expected, and that outcome."""
        found = {statement: await self.outcome(statement) for statement in statements}
        return {statement: outcome for statement, outcome in found.items() if outcome != expected}

    async def not_refused(self, statements: Iterable[str]) -> dict[str, str]:
        """Returns the statements that do not fail for a missing right, and their outcome."""
        return await self.outcomes_but(asyncpg.InsufficientPrivilegeError.sqlstate, statements)


@pytest.fixture(params=SCHEMAS)
async def role(request: pytest.FixtureRequest, system: Stack) -> AsyncIterator[Role]:
    itself = await asyncpg.connect(login(system.state, request.param))
    superuser = await asyncpg.connect(system.state.database_url)
    try:
        yield Role(request.param, itself, superuser)
    finally:
        await itself.close()
        await superuser.close()


async def test_control_its_own_tables_are_read_and_written(role: Role) -> None:
    tables = await role.tables(role.schema)
    assert await role.outcomes_but("", (table.read for table in tables)) == {}
    writes = (write for table in tables if not table.name.endswith(".schema_migrations") for write in table.writes)
    assert await role.outcomes_but("", writes) == {}


async def test_control_its_own_functions_are_called(role: Role) -> None:
    outcomes = [await role.outcome(routine.call) for routine in await role.routines(role.schema)]
    # PostgreSQL checks rights before it executes a function. So these errors prove that the right exists: NULL violates a constraint (class 23), only
    # triggers may call the function (0A000), the function itself rejects NULL (22004), or it finds no such project (TM…).
    assert {outcome for outcome in outcomes if not outcome.startswith(("23", "TM"))} - {"0A000", "22004"} == {""}


async def test_the_others_tables_are_closed(role: Role) -> None:
    tables = await role.tables(role.other_schema)
    attempts = (attempt for table in tables for attempt in (table.read, *table.writes, *table.blind_writes, *table.changes))
    assert await role.not_refused(attempts) == {}


async def test_its_own_tables_stay_as_they_are(role: Role) -> None:
    assert await role.not_refused(change for table in await role.tables(role.schema) for change in table.changes) == {}


async def test_which_migrations_were_applied_can_only_be_read(role: Role) -> None:
    table = Table(f"{role.schema}.schema_migrations", "version")
    assert await role.not_refused((*table.writes, *table.blind_writes)) == {}


async def test_the_others_functions_are_closed_and_its_own_stay_as_they_are(role: Role) -> None:
    own, others = await role.routines(role.schema), await role.routines(role.other_schema)
    assert await role.not_refused(routine.call for routine in others) == {}
    assert await role.not_refused(change for routine in (*own, *others) for change in routine.changes) == {}


@pytest.mark.parametrize("statement", CREATIONS)
async def test_nothing_can_be_made_in_any_schema(role: Role, statement: str) -> None:
    assert await role.not_refused(statement.format(schema=schema) for schema in (role.schema, role.other_schema, "public")) == {}


@pytest.mark.parametrize("statement", OF_THE_SERVER)
async def test_the_server_is_out_of_reach(role: Role, statement: str) -> None:
    other = next(name for name in SCHEMAS if name != role.name)
    assert await role.not_refused([statement.format(role=role.name, other=other)]) == {}


async def test_the_rights_are_these_and_no_others(role: Role) -> None:
    """There are two barriers: the role may not use the other schema, and it has no rights on the objects in it."""
    assert await role.column(RIGHTS, role.schema, role.name) == ["DELETE", "EXECUTE", "INSERT", "SELECT", "UPDATE", "USAGE"]
    assert await role.column(RIGHTS, role.other_schema, role.name) == []
    assert await role.column(RIGHTS, role.schema, "public") == []


async def test_all_belongs_to_the_migrator(role: Role) -> None:
    assert await role.column(OWNERS, role.schema) == ["migrator"]


async def test_what_postgres_tells_everybody_tells_nothing_of_the_others_rows(role: Role) -> None:
    await role.analyze()
    shown, there = await role.count("SELECT FROM pg_stats WHERE schemaname = $1", role.other_schema)
    assert (shown, there > 0) == (0, True)
    other = "SELECT FROM pg_stat_activity WHERE usename <> current_user AND query NOT IN ('', '<insufficient privilege>')"
    assert await role.count(other) == (0, ANY)


async def test_the_service_logs_in_as_its_role_alone(role: Role) -> None:
    logins = "SELECT DISTINCT usename::text FROM pg_stat_activity WHERE application_name = $1"
    assert await role.column(logins, role.name.replace("_", "-")) == [role.name]
