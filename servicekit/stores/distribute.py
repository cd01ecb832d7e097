"""Distributes the tables of a schema over the servers of a Citus cluster (docs/citus.md). Nothing here runs on a PostgreSQL without Citus.

A table whose primary key begins with the distribution column is distributed by it, together with the others: the rows of one value are on one server.
Each server gets a copy of a reference table. Local tables, and tables with another primary key, stay on the coordinator.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import asyncpg

from servicekit.stores.migrate import Migrations

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

HAS_CITUS: Final = "SELECT true FROM pg_extension WHERE extname = 'citus'"
IS_COORDINATOR: Final = "SELECT groupid = 0 FROM pg_dist_local_group"
HAS_WORKERS: Final = "SELECT EXISTS (SELECT FROM pg_dist_node WHERE noderole = 'primary' AND isactive AND shouldhaveshards)"
# The tables of the schema $1, with the first column of their primary keys and whether Citus knows them. First those that $2 names, then the others in
# the order of their creation, which is the order in which the statements of the service lock them.
TABLES: Final = """
    SELECT c.relname AS name, a.attname AS key, d.logicalrelid IS NOT NULL AS known
      FROM pg_class AS c JOIN pg_index AS i ON i.indrelid = c.oid AND i.indisprimary
      JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
      LEFT JOIN pg_dist_partition AS d ON d.logicalrelid = c.oid
     WHERE c.relnamespace = $1::text::regnamespace AND c.relkind = 'r'
     ORDER BY c.relname = ANY ($2::text[]) DESC, c.oid
"""


class NotDistributed(Exception):
    """The tables cannot be distributed. The message says why. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """How the tables of a schema are distributed."""

    migrations: Migrations
    column: str
    reference: Sequence[str] = ()
    local: Sequence[str] = ()

    async def apply(self, url: str) -> list[str]:
        """Distributes the tables that are not distributed yet, with their rows, in one transaction. Returns their names.

        `url`: the coordinator's, as the role that owns the schema and the database. Raises NotDistributed, or asyncpg's errors.
        """
        connection = await asyncpg.connect(url, statement_cache_size=0)
        try:
            await self._require(connection)
            async with connection.transaction():
                return await self._distribute(connection)
        finally:
            await connection.close()

    async def _require(self, connection: Connection) -> None:
        if not await connection.fetchval(HAS_CITUS):
            raise NotDistributed("the database does not have the extension citus: nothing was changed")
        if not await connection.fetchval(IS_COORDINATOR):
            raise NotDistributed("this server is not the coordinator of the Citus cluster: nothing was changed")
        if not await connection.fetchval(HAS_WORKERS):
            raise NotDistributed("the Citus cluster has no server for tables (citus_add_node): nothing was changed")
        if not await self.migrations.are_applied(connection):
            raise NotDistributed(f"the schema {self.migrations.schema} is not migrated to this version: run migrate first; nothing was changed")

    async def _distribute(self, connection: Connection) -> list[str]:
        await self.migrations.lock(connection)
        schema = self.migrations.schema
        tables = await connection.fetch(TABLES, schema, list(self.reference))
        wanted = [table for table in tables if table["name"] in self.reference or self._is_by_column(table)]
        new = [table["name"] for table in wanted if not table["known"]]
        if new:
            # All at once, so that no statement meets one table that is distributed and another one that is not.
            names = ", ".join(f"{schema}.{name}" for name in new)
            await connection.execute(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
        together = next((table["name"] for table in wanted if table["known"] and self._is_by_column(table)), None)
        for name in new:
            table = f"{schema}.{name}"
            if name in self.reference:
                await connection.execute("SELECT create_reference_table($1::text::regclass)", table)
            else:
                beside = f"{schema}.{together}" if together else "none"
                sql = "SELECT create_distributed_table($1::text::regclass, $2::text, colocate_with => $3::text)"
                await connection.execute(sql, table, self.column, beside)
                together = together or name
            # The rows are on the other servers now. What is left here is the copy from before.
            await connection.execute("SELECT truncate_local_data_after_distributing_table($1::text::regclass)", table)
        await _set_visibility(connection)
        return new

    def _is_by_column(self, table: "asyncpg.Record") -> bool:
        return table["key"] == self.column and table["name"] not in self.local


async def _set_visibility(connection: Connection) -> None:
    """Lets Citus not hide the parts of tables from the catalog, for all later connections to the database.

    To hide them, Citus tests each row of pg_class in each query. A query with which asyncpg looks up a type takes seconds then.
    """
    database = await connection.fetchval("SELECT quote_ident(current_database())")
    await connection.execute(f"ALTER DATABASE {database} SET citus.override_table_visibility = off")
