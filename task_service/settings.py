"""The settings of the task service."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, HttpUrl, SecretStr, ValidationInfo, field_validator

from servicekit.process.settings import MIN_SECRET_CHARACTERS, Count, Port, ProcessSettings, SealSettings, Seconds, ServiceSettings, is_production
from task_service.webhooks.targets import LOOPBACK, Network, parse_networks

Days = Annotated[int, Field(ge=1, le=3650)]

DEVELOPMENT_PAGE_TOKEN_KEY = "development only, not a secret at all"  # noqa: S105 - not a secret; production rejects it


class WebhookSettings(SealSettings):
    """The settings of webhooks: of the service, which creates them, and of the worker, which sends to them."""

    # Networks such as 10.1.0.0/16, separated by commas, whose addresses a webhook may have although they are not public.
    webhook_allowed_networks: str = ""

    @field_validator("webhook_allowed_networks")
    @classmethod
    def _networks_are_networks(cls, value: str) -> str:
        try:
            parse_networks(value)
        except ValueError:
            raise ValueError("must be networks such as 10.1.0.0/16, separated by commas") from None
        return value

    def allowed_networks(self, environment: str) -> Sequence[Network]:
        """Returns the networks whose addresses a webhook may have: in development, also those of this machine."""
        return (*parse_networks(self.webhook_allowed_networks), *(LOOPBACK if environment == "development" else ()))


class Settings(WebhookSettings, ServiceSettings):
    """The settings of the task service, in addition to those of every service.

    The bases have this order because the validators need `environment` before the other settings.
    """

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


class WorkerSettings(WebhookSettings, ProcessSettings):
    """The settings of the worker. It calls no service and serves no calls, so it has neither the service token nor the page token key."""

    grpc_port: Port = 50053
    ops_port: Port = 9093
    otel_service_name: str = "task-worker"
    database_pool_max_size: Count = 8
