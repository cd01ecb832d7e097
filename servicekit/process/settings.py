"""Settings from the environment. If settings are wrong or missing, one message names all of them, and the process exits with status 2."""

import sys
from typing import Annotated, Final, Literal, TypeVar

from pydantic import Field, PostgresDsn, RedisDsn, SecretStr, TypeAdapter, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from servicekit.access.seal import parse_key_encryption_keys
from servicekit.stores.session import Pooler

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Count = Annotated[int, Field(ge=1, le=100_000)]

MIN_PASSWORD_CHARACTERS: Final = 12
MIN_SECRET_CHARACTERS: Final = 32


class ProcessSettings(BaseSettings):
    """The settings of every process with a server. The environment variable has the field's name in capitals."""

    # An empty variable counts as unset, because compose files and charts cannot omit a variable.
    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    environment: Literal["development", "production"] = "production"
    database_url: SecretStr
    redis_url: SecretStr
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    bind_host: str = "0.0.0.0"  # noqa: S104 - in a pod, the pod's own address
    grpc_port: Port
    ops_port: Port
    otel_service_name: str
    otel_exporter_otlp_endpoint: str | None = None

    # What `database_url` leads to.
    database_pooler: Pooler = Pooler.NONE
    database_pool_max_size: Count = 10
    # Prepared statements per connection.
    database_statement_cache_size: Annotated[int, Field(ge=0, le=10_000)] = 256
    database_timeout_seconds: Seconds = 5.0

    token_issuer: str = "https://task-manager.local"  # noqa: S105 - a name, not a secret
    token_audience: str = "task-manager"  # noqa: S105 - as above

    default_deadline_seconds: Seconds = 10.0
    max_concurrent_calls: Count = 1000
    # An idle stream costs about 30 kB of memory and no CPU time.
    max_concurrent_streams: Count = 5000
    # Longer than a client's network can be down before its connection ends.
    slow_reader_seconds: Seconds = 30.0
    max_connection_age_seconds: Seconds = 300.0
    reflection_enabled: bool = True
    # From NOT_SERVING until the server rejects new calls: in this time, load balancers stop routing to the replica.
    drain_delay_seconds: Annotated[float, Field(ge=0, le=300)] = 5.0
    shutdown_grace_seconds: Seconds = 10.0

    @field_validator("database_url")
    @classmethod
    def _database_url_is_postgres(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        try:
            url = TypeAdapter(PostgresDsn).validate_python(value.get_secret_value())
        except ValidationError:
            raise ValueError("must be postgresql://user:password@host:port/database") from None
        for host in url.hosts():
            password = host["password"] or ""
            if is_production(info) and password and len(password) < MIN_PASSWORD_CHARACTERS:
                raise ValueError(f"must have a password of {MIN_PASSWORD_CHARACTERS} characters or more in production")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_url_is_redis(cls, value: SecretStr) -> SecretStr:
        try:
            TypeAdapter(RedisDsn).validate_python(value.get_secret_value())
        except ValidationError:
            raise ValueError("must be redis://host:port/database") from None
        return value

    @property
    def service_tokens(self) -> list[str]:
        """All accepted service tokens: none, if the process has no methods for other services."""
        return []


class ServiceSettings(ProcessSettings):
    """The settings that every service has, in addition to those of every process with a server."""

    # Authenticates the system's own services to one another. Several tokens are separated by commas: the first is sent, all are accepted.
    service_token: SecretStr

    @field_validator("service_token")
    @classmethod
    def _service_token_is_secret(cls, value: SecretStr) -> SecretStr:
        if any(len(token) < MIN_SECRET_CHARACTERS for token in split(value)):
            raise ValueError(f"must be a secret of {MIN_SECRET_CHARACTERS} characters or more; make one with: openssl rand -hex 32")
        return value

    @property
    def service_tokens(self) -> list[str]:
        """All accepted service tokens. The first one is the one to send."""
        return split(self.service_token)


class SealSettings(BaseSettings):
    """The setting of a process that encrypts secrets for storage, or decrypts them (servicekit.access.seal)."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    # One or more keys of 32 bytes in base64, separated by commas. The first one encrypts, all decrypt. All replicas must have the same keys.
    key_encryption_key: SecretStr

    @field_validator("key_encryption_key")
    @classmethod
    def _key_encryption_key_is_one(cls, value: SecretStr) -> SecretStr:
        try:
            parse_key_encryption_keys(value.get_secret_value())
        except ValueError:
            raise ValueError("must be 32 random bytes in base64; make it with: openssl rand -base64 32") from None
        return value

    @property
    def key_encryption_keys(self) -> list[bytes]:
        """The keys. The first one encrypts."""
        return parse_key_encryption_keys(self.key_encryption_key.get_secret_value())


def split(value: SecretStr) -> list[str]:
    """Returns the parts of a secret that holds several, separated by commas."""
    return [part.strip() for part in value.get_secret_value().split(",")]


def is_production(info: ValidationInfo) -> bool:
    """Whether a validator of a secret must reject a default or a short one. An environment that is not known to be development is production."""
    return info.data.get("environment") != "development"


S = TypeVar("S", bound=BaseSettings)


def load(settings: type[S]) -> S:
    """Returns the settings from the environment. If any are wrong, prints a message that names all of them and exits with status 2."""
    try:
        return settings()
    except ValidationError as error:
        # Without the input, which may be a secret.
        wrong = error.errors(include_input=False, include_url=False)
        lines = [_line(str(e["loc"][0]).upper() if e["loc"] else "", e["type"], e["msg"]) for e in wrong]
        sys.stderr.write("These settings (environment variables) are wrong:\n" + "\n".join(lines) + "\n")
        raise SystemExit(2) from None


def _line(name: str, kind: str, message: str) -> str:
    text = "is missing" if kind == "missing" else message.removeprefix("Value error, ")
    return f"  {name}: {text}" if name else f"  {text}"
