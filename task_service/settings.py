"""The settings of the task service."""

from typing import Annotated

from pydantic import Field, HttpUrl, SecretStr, ValidationInfo, field_validator

from servicekit.process.settings import MIN_SECRET_CHARACTERS, Count, Port, ProcessSettings, Seconds, ServiceSettings, is_production

Days = Annotated[int, Field(ge=1, le=3650)]

DEVELOPMENT_PAGE_TOKEN_KEY = "development only, not a secret at all"  # noqa: S105 - not a secret; production rejects it


class Settings(ServiceSettings):
    """The settings of the task service, in addition to those of every service."""

    grpc_port: Port = 50052
    ops_port: Port = 9092
    otel_service_name: str = "task-service"

    jwks_url: HttpUrl
    # A gRPC target: host:port, or dns:///host:port.
    auth_grpc_endpoint: Annotated[str, Field(min_length=1)]
    # Encrypts page tokens and resume tokens. All replicas must have the same key.
    page_token_key: SecretStr = Field(default=SecretStr(DEVELOPMENT_PAGE_TOKEN_KEY), validate_default=True)
    cache_ttl_seconds: Seconds = 300.0
    # How long a deleted task can be restored from the bin, and for how long after a change a stream can be resumed from before it.
    task_retention_days: Days = 30
    change_retention_days: Days = 7
    # PostgreSQL plans each statement once for each connection (see DatabaseOptions). Citus cannot execute such a plan of a list: there it is false.
    database_generic_plans: bool = True

    @field_validator("page_token_key")
    @classmethod
    def _page_token_key_is_secret(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        key = value.get_secret_value()
        if len(key) < MIN_SECRET_CHARACTERS or (is_production(info) and key == DEVELOPMENT_PAGE_TOKEN_KEY):
            raise ValueError(f"must be a secret of {MIN_SECRET_CHARACTERS} characters or more; make one with: openssl rand -base64 32")
        return value


class WorkerSettings(ProcessSettings):
    """The settings of the worker. It calls no service and serves no calls, so it has neither the service token nor the page token key."""

    grpc_port: Port = 50053
    ops_port: Port = 9093
    otel_service_name: str = "task-worker"
    database_pool_max_size: Count = 8
