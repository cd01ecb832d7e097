"""The command line of a service: `run` and `migrate`, which every service has, `work` and `distribute`, which some have, and the service's own."""

import argparse
import asyncio
import gc
import inspect
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, NoReturn, TypeAlias

import structlog
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from servicekit.process import logging
from servicekit.process.settings import load
from servicekit.stores.distribute import Distribution, NotDistributed
from servicekit.stores.migrate import Migrations
from servicekit.stores.rights import RoleRefused
from servicekit.stores.wait import wait_for_database

Action: TypeAlias = Callable[[], Coroutine[None, None, None]]


class MigrationSettings(BaseSettings):
    """The settings of a migration: its own credentials (their role owns the schema), and the roles that get the right to use it."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    database_url: SecretStr
    # The role that the service logs in as. Unset if the service logs in as the owner of the schema.
    service_role: str | None = None
    # The role that the service's worker logs in as. Unset if the service has no worker, or the worker logs in as the owner of the schema.
    worker_role: str | None = None
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


@dataclass(frozen=True, slots=True)
class Command:
    """A command with actions, `python -m PROGRAM COMMAND ACTION`. The help text of an action is the first line of its docstring."""

    help: str
    actions: Mapping[str, Action]


# grpc's core reads this variable when it is imported. Its event engine receives a call in one thread and hands it to the thread that serves Python.
# Without it, the second thread receives the call itself, which saves a fifth of an empty call's CPU (docs/adr/0020-server-runtime.md).
GRPC_EXPERIMENTS: Final = "-event_engine_listener"

# Allocations between two collections of the youngest generation. A call creates few cycles. With Python's default of 700, the collector would run
# several times in each turn of the event loop, and take a tenth of the time of the imports.
GC_THRESHOLD: Final = 20_000

_NONE: Final[Mapping[str, Command]] = MappingProxyType({})


def main(
    program: str,
    run: Action,
    migrations: Migrations,
    commands: Mapping[str, Command] = _NONE,
    distribution: Distribution | None = None,
    work: Action | None = None,
) -> None:
    """Runs the command that the command line names. `run`, `work` and the actions of `commands` read the service's settings themselves."""
    gc.set_threshold(GC_THRESHOLD)
    signal.signal(signal.SIGTERM, _end)
    options = _parser(program, commands, distribution, work).parse_args()
    if options.command in {"run", "work"}:
        import uvloop  # noqa: PLC0415 - only these two need it

        os.environ.setdefault("GRPC_EXPERIMENTS", GRPC_EXPERIMENTS)

        uvloop.run(work() if options.command == "work" and work is not None else run())
    elif options.command == "migrate":
        asyncio.run(_migrate(program, migrations))
    elif options.command == "distribute" and distribution is not None:
        asyncio.run(_distribute(program, distribution))
    else:
        asyncio.run(commands[options.command].actions[options.action]())


def _end(number: int, frame: object) -> NoReturn:  # noqa: ARG001 - signal's signature
    """Ends the process, as SIGTERM does without a handler.

    The first process of a container needs this handler, because the kernel does not end that process by a signal that it does not handle.
    """
    raise SystemExit(128 + number)


def _parser(
    program: str, commands: Mapping[str, Command], distribution: Distribution | None = None, work: Action | None = None
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {program}")
    choices = parser.add_subparsers(dest="command", required=True)
    choices.add_parser("run", help="serve until SIGTERM")
    if work is not None:
        choices.add_parser("work", help="do the work of the background until SIGTERM; any number of processes can")
    choices.add_parser("migrate", help="migrate the database schema to this version, then exit")
    if distribution is not None:
        choices.add_parser("distribute", help="distribute the tables over the servers of a Citus cluster, after migrate, then exit")
    for name, command in commands.items():
        actions = choices.add_parser(name, help=command.help).add_subparsers(dest="action", required=True)
        for action, does in command.actions.items():
            actions.add_parser(action, help=(inspect.getdoc(does) or "").partition("\n")[0])
    return parser


async def _migrate(program: str, migrations: Migrations) -> None:
    settings = load(MigrationSettings)
    logging.configure(settings.log_level, program)
    url = settings.database_url.get_secret_value()
    await wait_for_database(url)
    try:
        applied = await migrations.apply(url, settings.service_role, settings.worker_role)
    except RoleRefused as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
    structlog.get_logger().info(
        "migrated", schema=migrations.schema, applied=applied, service_role=settings.service_role, worker_role=settings.worker_role
    )


async def _distribute(program: str, distribution: Distribution) -> None:
    settings = load(MigrationSettings)
    logging.configure(settings.log_level, program)
    try:
        tables = await distribution.apply(settings.database_url.get_secret_value())
    except NotDistributed as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
    structlog.get_logger().info("distributed", schema=distribution.migrations.schema, tables=tables)
