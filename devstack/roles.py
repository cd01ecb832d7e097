"""The login roles of the database: one that migrates and owns it, one for each service, and what they may do before any migration grants more.

The superuser makes them at every start; no process of the stack but Postgres' own gets the superuser's password.
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
# Each service logs in under its own name.
SERVICES = ("auth_service", "task_service")

_ATTRIBUTES = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
# What a login could otherwise reach, if only to make temporary tables there.
_OTHER_DATABASES = ("postgres", "template1")

# Postgres' own number (scram-common.h); more would only delay each login, since the passwords are random.
_SCRAM_ITERATIONS = 4096
_SCRAM_SALT_BYTES = 16

# Statements that hand to $2 what $1 owns. A sequence of a column follows its table, and a table's type the table.
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
    """Makes the roles that are missing, and gives all of them their passwords and no attribute beyond the login. As the superuser."""
    for role in (MIGRATOR, *SERVICES):
        if await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role) is None:
            await connection.execute(f"CREATE ROLE {role}")
        await connection.execute(f"ALTER ROLE {role} {_ATTRIBUTES} PASSWORD '{scram_verifier(passwords[role])}'")


async def ensure_database(connection: "asyncpg.Connection[asyncpg.Record]", database: str) -> None:
    """Makes the database if it is missing, the migrator's own, and lets in none but the roles. As the superuser, from another database."""
    if await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", database) is None:
        await connection.execute(f"CREATE DATABASE {database}")
    logins = ", ".join((MIGRATOR, *SERVICES))
    async with connection.transaction():
        await connection.execute(f"ALTER DATABASE {database} OWNER TO {MIGRATOR}")
        await connection.execute(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC, {', '.join(SERVICES)}")
        await connection.execute(f"GRANT CONNECT ON DATABASE {database} TO {logins}")
        await connection.execute(f"REVOKE ALL ON DATABASE {', '.join(_OTHER_DATABASES)} FROM PUBLIC, {logins}")


async def adopt_schemas(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Hands the schemas that a stack made as the superuser, when there was no other role, to the migrator. As the superuser, in that database."""
    async with connection.transaction():
        for (statement,) in await connection.fetch(_HANDOVER, SUPERUSER, MIGRATOR):
            await connection.execute(statement)


def scram_verifier(password: str) -> str:
    """What Postgres keeps of a password (RFC 5803), made here so that the server, its log and its statistics never see the password. ASCII alone."""
    salt = os.urandom(_SCRAM_SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _SCRAM_ITERATIONS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{encoded[0]}${encoded[1]}:{encoded[2]}"
