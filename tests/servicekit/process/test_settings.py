"""Settings, with the real commands: one message names all wrong settings, and the process exits with status 2."""

import asyncio
import base64
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from tests.support.tiers import first_quick

DATABASE = "postgresql://user:a-long-enough-password@127.0.0.1:1/db"
KEY_ENCRYPTION_KEYS = ",".join(base64.b64encode(os.urandom(32)).decode() for _ in range(2))
BOTH = {"DATABASE_URL": DATABASE, "REDIS_URL": "redis://127.0.0.1:1/0", "SERVICE_TOKEN": "0123456789abcdef0123456789abcdef"}
AUTH = BOTH | {"KEY_ENCRYPTION_KEY": KEY_ENCRYPTION_KEYS}
TASK = AUTH | {"JWKS_URL": "http://127.0.0.1:1/jwks.json", "AUTH_GRPC_ENDPOINT": "127.0.0.1:1", "PAGE_TOKEN_KEY": "0123456789abcdef0123456789abcdef"}
TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A command's exit status and its error output."""

    status: int | None
    error: str

    @property
    def named(self) -> set[str]:
        """The settings that the message names."""
        return {line.strip().partition(":")[0] for line in self.error.splitlines()[1:]}


async def command(service: str, name: str, environment: Mapping[str, str]) -> Outcome:
    """Runs `python -m SERVICE NAME` with only these environment variables."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", service, name),
        env={"PATH": os.environ["PATH"], **environment},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(TIMEOUT_SECONDS):
        _, error = await process.communicate()
    return Outcome(process.returncode, error.decode())


@pytest.mark.parametrize(("service", "missing"), [("auth_service", set(AUTH)), ("task_service", set(TASK))])
async def test_everything_that_is_missing_is_named_at_once(service: str, missing: set[str]) -> None:
    outcome = await command(service, "run", {})
    assert (outcome.status, outcome.named) == (2, missing), outcome.error
    assert "Traceback" not in outcome.error


WRONG: dict[str, str] = {
    "ENVIRONMENT": "staging",
    "DATABASE_URL": "mysql://secret-in-url@host/db",
    "REDIS_URL": "http://secret-in-url",
    "SERVICE_TOKEN": "0123456789abcdef0123456789abcdef,secret-too-short",
    "LOG_LEVEL": "LOUD",
    "GRPC_PORT": "70000",
    "OPS_PORT": "http",
    "DATABASE_POOL_MAX_SIZE": "0",
    "DATABASE_TIMEOUT_SECONDS": "-1",
    "DEFAULT_DEADLINE_SECONDS": "soon",
    "MAX_CONCURRENT_CALLS": "0",
    "REFLECTION_ENABLED": "perhaps",
    "DRAIN_DELAY_SECONDS": "-1",
}
WRONG_AUTH = {
    "KEY_ENCRYPTION_KEY": "secret-no-key",
    "KEY_ROTATION_SECONDS": "0",
    "KEY_LEAD_SECONDS": "0",
    "ACCESS_TOKEN_TTL_SECONDS": "3600",
    "SESSION_IDLE_SECONDS": "0",
    "SESSION_LIFETIME_SECONDS": "1e9",
    "LOGIN_ACCOUNT_BURST": "0",
    "LOGIN_ACCOUNT_INTERVAL_SECONDS": "0",
    "LOGIN_ADDRESS_BURST": "many",
    "LOGIN_ADDRESS_INTERVAL_SECONDS": "-1",
    "REGISTER_ADDRESS_BURST": "1.5",
    "REGISTER_ADDRESS_INTERVAL_SECONDS": "soon",
    "BCRYPT_COST": "3",
    "HASHING_THREADS": "0",
}
WRONG_TASK = {
    "JWKS_URL": "secret-no-url",
    "PAGE_TOKEN_KEY": "secret-too-short",
    "CACHE_TTL_SECONDS": "0",
    "KEY_ENCRYPTION_KEY": "secret-no-key",
    "WEBHOOK_ALLOWED_NETWORKS": "secret-no-network",
}


@pytest.mark.parametrize(("service", "wrong"), [("auth_service", WRONG | WRONG_AUTH), ("task_service", WRONG | WRONG_TASK)])
async def test_everything_that_is_wrong_is_named_at_once_and_no_value_told(service: str, wrong: Mapping[str, str]) -> None:
    # AUTH_GRPC_ENDPOINT is required and accepts any text, so it cannot be wrong.
    outcome = await command(service, "run", {"AUTH_GRPC_ENDPOINT": "127.0.0.1:1", **wrong})
    assert (outcome.status, outcome.named) == (2, set(wrong)), outcome.error
    assert "secret" not in outcome.error.replace("must be a secret of", "")


@pytest.mark.parametrize(
    ("service", "environment", "named"),
    [
        ("auth_service", AUTH | {"DATABASE_URL": "postgresql://user:short@host/db"}, {"DATABASE_URL"}),
        ("auth_service", AUTH | {"BCRYPT_COST": "9", "KEY_LEAD_SECONDS": "119"}, {"BCRYPT_COST", "KEY_LEAD_SECONDS"}),
        ("task_service", TASK | {"PAGE_TOKEN_KEY": "development only, not a secret at all"}, {"PAGE_TOKEN_KEY"}),
        ("task_service", TASK | {"PAGE_TOKEN_KEY": "", "DATABASE_URL": "postgresql://user:postgres@host/db"}, {"PAGE_TOKEN_KEY", "DATABASE_URL"}),
    ],
    ids=["short-password", "weak", "default-key", "empty-key-is-the-default"],
)
@pytest.mark.parametrize("stage", first_quick([{}, {"ENVIRONMENT": "production"}], ["nothing-said", "production"]))
async def test_production_refuses_default_and_short_secrets(
    service: str, environment: dict[str, str], named: set[str], stage: dict[str, str]
) -> None:
    outcome = await command(service, "run", environment | stage)
    assert (outcome.status, outcome.named) == (2, named), outcome.error


@pytest.mark.slow("starts a program")
async def test_a_limit_that_cannot_be_kept_is_named() -> None:
    limits = {"LOGIN_ACCOUNT_BURST": "100000", "LOGIN_ACCOUNT_INTERVAL_SECONDS": "86400", "LOGIN_ADDRESS_INTERVAL_SECONDS": "1e-7"}
    outcome = await command("auth_service", "run", AUTH | limits)
    assert (outcome.status, outcome.named) == (2, {"LOGIN_ACCOUNT_INTERVAL_SECONDS", "LOGIN_ADDRESS_INTERVAL_SECONDS"}), outcome.error


@pytest.mark.parametrize("service", ["auth_service", "task_service"])
async def test_a_migration_needs_its_database_alone(service: str) -> None:
    outcome = await command(service, "migrate", {})
    assert (outcome.status, outcome.named) == (2, {"DATABASE_URL"})


async def test_a_migration_without_its_database_does_not_succeed(database_url: str) -> None:
    outcome = await command("auth_service", "migrate", {"DATABASE_URL": f"{database_url}_that_does_not_exist"})
    assert outcome.status not in {0, 2, None}


@pytest.mark.parametrize("name", ["start", ""])
async def test_an_unknown_command_is_a_usage_error(name: str) -> None:
    outcome = await command("auth_service", name, AUTH)
    assert outcome.status == 2
    assert "usage:" in outcome.error
