"""The commands that every service has: `run` and `migrate`."""

import argparse
import asyncio
from collections.abc import Callable, Coroutine
from typing import Literal

import structlog
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from servicekit import logging
from servicekit.migrate import Migrations
from servicekit.settings import load


class MigrationSettings(BaseSettings):
    """All that a migration needs: its own credentials, which own the schema."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    database_url: SecretStr
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


def main(program: str, run: Callable[[], Coroutine[None, None, None]], migrations: Migrations) -> None:
    """Does what the command line says. `run` reads the service's settings itself."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="serve until SIGTERM")
    commands.add_parser("migrate", help="bring the database's schema up to this version and end")
    if parser.parse_args().command == "run":
        import uvloop  # noqa: PLC0415 - only to serve

        uvloop.run(run())
    else:
        asyncio.run(_migrate(program, migrations))


async def _migrate(program: str, migrations: Migrations) -> None:
    settings = load(MigrationSettings)
    logging.configure(settings.log_level, program)
    applied = await migrations.apply(settings.database_url.get_secret_value())
    structlog.get_logger().info("migrated", schema=migrations.schema, applied=applied)
