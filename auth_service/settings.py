"""The settings of the auth service."""

from typing import Annotated, TypeVar

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from auth_service.domain import SessionLifetime
from auth_service.keys import KeyPolicy, KeySeal, parse_key_encryption_keys
from auth_service.login_guard import LoginLimits
from servicekit.limit import Limit
from servicekit.settings import Count, Port, Seconds, ServiceSettings, is_production
from servicekit.tokens import MAX_LIFETIME_SECONDS

N = TypeVar("N", int, float)

MIN_PRODUCTION_BCRYPT_COST = 10
# The gateway fetches the keys each 30 seconds and the services each 60, and this service reads them each 15.
MIN_PRODUCTION_LEAD_SECONDS = 120
YEAR_SECONDS = 31_536_000


class KeySettings(BaseSettings):
    """What says how the signing keys are kept, and how long."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    # 32 bytes in base64. Several with commas: the first seals, all open. The same on all replicas.
    key_encryption_key: SecretStr
    key_rotation_seconds: Annotated[float, Field(ge=1, le=YEAR_SECONDS)] = 2_592_000.0
    # From a key's publication to its first signature: longer than the gateway (JWKS_REFRESH_SECONDS) and the services (60 s) keep the set.
    key_lead_seconds: Annotated[float, Field(ge=0.5, le=86_400)] = 300.0
    # RFC 9068 tokens cannot be called back everywhere at once, so none lives longer than 15 minutes.
    access_token_ttl_seconds: Annotated[int, Field(ge=1, le=MAX_LIFETIME_SECONDS)] = MAX_LIFETIME_SECONDS

    @field_validator("key_encryption_key")
    @classmethod
    def _key_encryption_key_is_one(cls, value: SecretStr) -> SecretStr:
        try:
            parse_key_encryption_keys(value.get_secret_value())
        except ValueError:
            raise ValueError("must be 32 random bytes in base64; make it with: openssl rand -base64 32") from None
        return value

    @field_validator("key_lead_seconds")
    @classmethod
    def _key_lead_is_shorter_than_its_time(cls, value: float, info: ValidationInfo) -> float:
        if value >= info.data.get("key_rotation_seconds", float("inf")):
            raise ValueError("must be less than KEY_ROTATION_SECONDS")
        return value

    @property
    def key_seal(self) -> KeySeal:
        """What opens and seals the keys."""
        return KeySeal(parse_key_encryption_keys(self.key_encryption_key.get_secret_value()))

    @property
    def key_policy(self) -> KeyPolicy:
        """The course of the keys."""
        return KeyPolicy(self.key_rotation_seconds, self.key_lead_seconds, self.access_token_ttl_seconds)


class Settings(KeySettings, ServiceSettings):
    """What the auth service can be told, beside what every service can.

    The bases are in this order since validators need `environment` before the rest.
    """

    grpc_port: Port = 50051
    ops_port: Port = 9091
    otel_service_name: str = "auth-service"

    # From each use of a session to the next, and altogether.
    session_idle_seconds: Annotated[float, Field(gt=0, le=YEAR_SECONDS)] = 2_592_000.0
    session_lifetime_seconds: Annotated[float, Field(gt=0, le=YEAR_SECONDS)] = 7_776_000.0

    # Failed attempts at once, and then one in so many seconds; per account, and per address.
    login_account_burst: Count = 10
    login_account_interval_seconds: Seconds = 60.0
    login_address_burst: Count = 50
    login_address_interval_seconds: Seconds = 10.0

    # 2^cost rounds; 12 is about a quarter of a second. (OWASP: at least 10.)
    bcrypt_cost: Annotated[int, Field(ge=4, le=16)] = 12
    # Fewer than there are cores, else a burst of logins holds up the calls beside it: measured, see README.
    hashing_threads: Count = 1
    hashing_queue: Count = 32

    @field_validator("bcrypt_cost")
    @classmethod
    def _bcrypt_cost_is_enough(cls, value: int, info: ValidationInfo) -> int:
        return _at_least(MIN_PRODUCTION_BCRYPT_COST, value, info)

    @field_validator("login_account_interval_seconds", "login_address_interval_seconds")
    @classmethod
    def _limit_can_be_kept(cls, value: float, info: ValidationInfo) -> float:
        assert info.field_name is not None
        # No burst, if it is wrong itself.
        burst = info.data.get(info.field_name.replace("interval_seconds", "burst"), 1)
        try:
            Limit(burst, value)
        except ValueError:
            raise ValueError(f"must be a microsecond or more, and a hundred years or less for the {burst} at once together") from None
        return value

    @field_validator("key_lead_seconds")
    @classmethod
    def _key_lead_is_long_enough(cls, value: float, info: ValidationInfo) -> float:
        return _at_least(MIN_PRODUCTION_LEAD_SECONDS, value, info)

    @property
    def session_lifetime(self) -> SessionLifetime:
        """How long sessions last."""
        return SessionLifetime(self.session_idle_seconds, self.session_lifetime_seconds)

    @property
    def login_limits(self) -> LoginLimits:
        """How often passwords may be tried in vain."""
        return LoginLimits(
            per_account=Limit(self.login_account_burst, self.login_account_interval_seconds),
            per_address=Limit(self.login_address_burst, self.login_address_interval_seconds),
        )


def _at_least(least: int, value: N, info: ValidationInfo) -> N:
    if is_production(info) and value < least:
        raise ValueError(f"must be {least} or more in production")
    return value
