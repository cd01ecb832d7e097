"""The settings of the task service."""

from pydantic import Field, HttpUrl, RedisDsn, SecretStr, TypeAdapter, ValidationError, ValidationInfo, field_validator

from servicekit.settings import Port, Seconds, ServiceSettings, is_production

MIN_SECRET_CHARACTERS = 32
DEVELOPMENT_PAGE_TOKEN_KEY = "development only, not a secret at all"  # noqa: S105 - as it says; production refuses it


class Settings(ServiceSettings):
    """What the task service can be told, beside what every service can."""

    grpc_port: Port = 50052
    ops_port: Port = 9092
    otel_service_name: str = "task-service"

    redis_url: SecretStr
    jwks_url: HttpUrl
    # All replicas must have the same one.
    page_token_key: SecretStr = Field(default=SecretStr(DEVELOPMENT_PAGE_TOKEN_KEY), validate_default=True)
    cache_ttl_seconds: Seconds = 300.0

    @field_validator("redis_url")
    @classmethod
    def _redis_url_is_redis(cls, value: SecretStr) -> SecretStr:
        try:
            TypeAdapter(RedisDsn).validate_python(value.get_secret_value())
        except ValidationError:
            raise ValueError("must be redis://host:port/database") from None
        return value

    @field_validator("page_token_key")
    @classmethod
    def _page_token_key_is_secret(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        key = value.get_secret_value()
        if len(key) < MIN_SECRET_CHARACTERS or (is_production(info) and key == DEVELOPMENT_PAGE_TOKEN_KEY):
            raise ValueError(f"must be a secret of {MIN_SECRET_CHARACTERS} characters or more; make one with: openssl rand -base64 32")
        return value
