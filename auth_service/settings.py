"""The settings of the auth service."""

from typing import Annotated

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from auth_service.keys import parse_signing_key
from servicekit.settings import Count, Port, ServiceSettings, is_production
from servicekit.tokens import MAX_LIFETIME_SECONDS

MIN_PRODUCTION_BCRYPT_COST = 10


class Settings(ServiceSettings):
    """What the auth service can be told, beside what every service can."""

    grpc_port: Port = 50051
    ops_port: Port = 9091
    otel_service_name: str = "auth-service"

    # An Ed25519 private key, PKCS 8 in PEM. All replicas must have the same one.
    signing_key: SecretStr
    # RFC 9068 tokens cannot be called back, so none lives longer than 15 minutes.
    access_token_ttl_seconds: Annotated[int, Field(ge=1, le=MAX_LIFETIME_SECONDS)] = MAX_LIFETIME_SECONDS
    refresh_token_ttl_seconds: Annotated[float, Field(gt=0, le=31_536_000)] = 2_592_000.0

    # 2^cost rounds; 12 is about a quarter of a second. (OWASP: at least 10.)
    bcrypt_cost: Annotated[int, Field(ge=4, le=16)] = 12
    hashing_threads: Count = 2
    hashing_queue: Count = 32

    @field_validator("bcrypt_cost")
    @classmethod
    def _bcrypt_cost_is_enough(cls, value: int, info: ValidationInfo) -> int:
        if is_production(info) and value < MIN_PRODUCTION_BCRYPT_COST:
            raise ValueError(f"must be {MIN_PRODUCTION_BCRYPT_COST} or more in production")
        return value

    @field_validator("signing_key")
    @classmethod
    def _signing_key_is_ed25519(cls, value: SecretStr) -> SecretStr:
        try:
            parse_signing_key(value.get_secret_value())
        except (ValueError, TypeError):
            raise ValueError("must be an Ed25519 private key in PEM; make one with: openssl genpkey -algorithm ed25519") from None
        return value
