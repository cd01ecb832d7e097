"""The login roles of the database: one that owns the database and runs the migrations, one for each program, and their initial privileges.

The superuser creates or corrects them at every start. No process except PostgreSQL receives the superuser's password.
"""

import base64
import hashlib
import hmac
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncpg

SUPERUSER = "postgres"
MIGRATOR = "migrator"
# Each service logs in with the role of its own name.
SERVICES = ("auth_service", "task_service")
# The worker of task_service logs in with this role.
WORKER = "task_worker"
PROGRAMS = (*SERVICES, WORKER)

_ATTRIBUTES = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
# DATABASE_TIMEOUT_SECONDS of the programs, for their connections through PgBouncer, which cannot set it themselves.
_LIMITS = {"statement_timeout": "5s", "idle_in_transaction_session_timeout": "5s"}
# By default, every role may connect to these databases.
_OTHER_DATABASES = ("postgres", "template1")

# PostgreSQL's default (scram-common.h). The passwords are random, so more iterations would only delay each login.
_SCRAM_ITERATIONS = 4096
_SCRAM_SALT_BYTES = 16

# Returns the statements that transfer ownership of $1's objects to $2. A column's sequence and a table's row type follow their table.
_HANDOVER = """
    WITH schemas AS (
        SELECT oid, nspname, nspowner FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public')
    ), owned (kind, name) AS (
        SELECT 'SCHEMA', quote_ident(nspname) FROM schemas WHERE nspowner = $1::text::regrole
        UNION ALL
        SELECT 'TABLE', oid::regclass::text FROM pg_class
         WHERE relnamespace IN (SELECT oid FROM schemas) AND relowner = $1::text::regrole AND relkind IN ('r', 'p', 'v', 'm')
        UNION ALL
        SELECT 'SEQUENCE', oid::regclass::text FROM pg_class
         WHERE relnamespace IN (SELECT oid FROM schemas) AND relowner = $1::text::regrole AND relkind = 'S'
           AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype IN ('a', 'i'))
        UNION ALL
        SELECT 'ROUTINE', oid::regprocedure::text FROM pg_proc
         WHERE pronamespace IN (SELECT oid FROM schemas) AND proowner = $1::text::regrole
        UNION ALL
        SELECT 'TYPE', oid::regtype::text FROM pg_type
         WHERE typnamespace IN (SELECT oid FROM schemas) AND typowner = $1::text::regrole
           AND (typtype IN ('d', 'e', 'r') OR typrelid IN (SELECT oid FROM pg_class WHERE relkind = 'c'))
    )
    SELECT format('ALTER %s %s OWNER TO %I', kind, name, $2::text) FROM owned
"""


async def ensure_roles(connection: "asyncpg.Connection[asyncpg.Record]", passwords: Mapping[str, str]) -> None:
    """Creates missing roles, sets the passwords and the programs' limits, and removes every attribute but LOGIN. Needs a superuser's connection."""
    for role in (MIGRATOR, *PROGRAMS):
        if await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role) is None:
            await connection.execute(f"CREATE ROLE {role}")
        await connection.execute(f"ALTER ROLE {role} {_ATTRIBUTES} PASSWORD '{scram_verifier(passwords[role])}'")
    for role in PROGRAMS:
        for name, value in _LIMITS.items():
            await connection.execute(f"ALTER ROLE {role} SET {name} = '{value}'")


async def ensure_database(connection: "asyncpg.Connection[asyncpg.Record]", database: str) -> None:
    """Creates the database if it is missing, makes the migrator its owner, and lets only the roles connect.

    Needs a superuser's connection to another database.
    """
    if await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", database) is None:
        await connection.execute(f"CREATE DATABASE {database}")
    logins = ", ".join((MIGRATOR, *PROGRAMS))
    async with connection.transaction():
        await connection.execute(f"ALTER DATABASE {database} OWNER TO {MIGRATOR}")
        await connection.execute(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC, {', '.join(PROGRAMS)}")
        await connection.execute(f"GRANT CONNECT ON DATABASE {database} TO {logins}")
        await connection.execute(f"REVOKE ALL ON DATABASE {', '.join(_OTHER_DATABASES)} FROM PUBLIC, {logins}")


async def adopt_schemas(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Transfers ownership of the schemas that an old version of the stack created as the superuser to the migrator.

    Needs a superuser's connection to that database.
    """
    async with connection.transaction():
        for (statement,) in await connection.fetch(_HANDOVER, SUPERUSER, MIGRATOR):
            await connection.execute(statement)


def scram_verifier(password: str) -> str:
    """Returns the verifier that PostgreSQL stores for a password (RFC 5803).

    Computed here, so that the server, its log and its statistics never contain the password. Raises UnicodeEncodeError if it is not ASCII.
    """
    salt = os.urandom(_SCRAM_SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _SCRAM_ITERATIONS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{encoded[0]}${encoded[1]}:{encoded[2]}"
