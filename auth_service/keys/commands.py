"""`python -m auth_service keys list | rotate | replace`. Each action prints all signing keys after the change."""

import sys
from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from auth_service.keys.domain import StoredKeys
from auth_service.keys.errors import KeyNotOpened
from auth_service.keys.repository import PostgresKeys
from auth_service.keys.service import KeyRotation
from auth_service.keys.settings import KeySettings
from servicekit.errors import ServiceError
from servicekit.process import logging
from servicekit.process.settings import load
from servicekit.stores.postgres import Database, DatabaseOptions
from servicekit.stores.session import Pooler

TIMEOUT_SECONDS = 15.0


class CommandSettings(KeySettings):
    """The settings of the commands."""

    database_url: SecretStr
    database_pooler: Pooler = Pooler.NONE


async def list_keys() -> None:
    """List the signing keys with their states."""
    await _run(KeyRotation.list)


async def rotate_keys() -> None:
    """Create the next signing key now, unless there is one. It signs after KEY_LEAD_SECONDS."""
    await _run(KeyRotation.rotate)


async def replace_keys() -> None:
    """Sign with a new key at once and withdraw all others. Within a minute, every access token issued before is rejected."""
    await _run(KeyRotation.replace)


async def _run(action: Callable[[KeyRotation], Awaitable[StoredKeys]]) -> None:
    settings = load(CommandSettings)
    logging.configure("WARNING", "auth-service")
    options = DatabaseOptions(settings.database_url.get_secret_value(), "auth-service keys", 1, 0, TIMEOUT_SECONDS, pooler=settings.database_pooler)
    database = Database(options, CollectorRegistry())
    await database.start()
    try:
        stored = await action(KeyRotation(PostgresKeys(database), settings.key_seal, settings.key_policy))
    except (ServiceError, KeyNotOpened) as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(1) from None
    finally:
        await database.close()
    sys.stdout.write(_table(stored))


def _table(stored: StoredKeys) -> str:
    rows = [("KID", "STATE", "SIGNS FROM")]
    rows += [(key.id, stored.state_of(key), key.active_from.isoformat(timespec="seconds")) for key in stored.keys]
    return "".join(f"{kid:<44}{state:<9}{active_from}\n" for kid, state, active_from in rows)
