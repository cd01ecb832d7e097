"""The settings of the auth service."""

from typing import Annotated, TypeVar

from pydantic import Field, ValidationInfo, field_validator

from auth_service.keys.settings import YEAR_SECONDS, KeySettings
from auth_service.passwords.login_guard import LoginLimits
from auth_service.sessions.domain import SessionLifetime
from servicekit.access.rate_limit import Limit
from servicekit.process.settings import Count, Port, Seconds, ServiceSettings, is_production

N = TypeVar("N", int, float)

MIN_PRODUCTION_BCRYPT_COST = 10
# The gateway fetches the keys every 30 s, the services fetch them every 60 s, and auth_service reads them every 15 s.
MIN_PRODUCTION_LEAD_SECONDS = 120


class Settings(KeySettings, ServiceSettings):
    """The settings of the auth service, in addition to those of every service.

    The bases have this order because the validators need `environment` before the other settings.
    """

    grpc_port: Port = 50051
    ops_port: Port = 9091
    otel_service_name: str = "auth-service"

    # The maximum time from a refresh of a session to the next one, and the maximum lifetime of a session.
    session_idle_seconds: Annotated[float, Field(gt=0, le=YEAR_SECONDS)] = 2_592_000.0
    session_lifetime_seconds: Annotated[float, Field(gt=0, le=YEAR_SECONDS)] = 7_776_000.0

    # Limits of failed attempts, per account and per client address: a burst, then one attempt per interval.
    login_account_burst: Count = 10
    login_account_interval_seconds: Seconds = 60.0
    login_address_burst: Count = 50
    login_address_interval_seconds: Seconds = 10.0
    # The limit of registrations per client address: a burst, then one per interval. Many users of a company may share an address.
    register_address_burst: Count = 100
    register_address_interval_seconds: Seconds = 60.0

    # The limit of different unknown API tokens per client address: a burst, then one per interval.
    api_token_address_burst: Count = 50
    api_token_address_interval_seconds: Seconds = 10.0

    # 2^cost rounds. Cost 12 takes about 0.25 s. OWASP requires at least 10.
    bcrypt_cost: Annotated[int, Field(ge=4, le=16)] = 12
    # Fewer than the number of cores, because otherwise a burst of logins slows down other calls (for measurements, see README.md).
    hashing_threads: Count = 1
    hashing_queue: Count = 32

    @field_validator("bcrypt_cost")
    @classmethod
    def _bcrypt_cost_is_enough(cls, value: int, info: ValidationInfo) -> int:
        return _at_least(MIN_PRODUCTION_BCRYPT_COST, value, info)

    @field_validator(
        "login_account_interval_seconds", "login_address_interval_seconds", "register_address_interval_seconds", "api_token_address_interval_seconds"
    )
    @classmethod
    def _limit_can_be_kept(cls, value: float, info: ValidationInfo) -> float:
        assert info.field_name is not None
        # The burst is missing if it is invalid itself.
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
    def api_token_limit(self) -> Limit:
        """The limit of unknown API tokens per client address."""
        return Limit(self.api_token_address_burst, self.api_token_address_interval_seconds)

    @property
    def login_limits(self) -> LoginLimits:
        """The limits of failed password attempts and of registrations."""
        return LoginLimits(
            per_account=Limit(self.login_account_burst, self.login_account_interval_seconds),
            per_address=Limit(self.login_address_burst, self.login_address_interval_seconds),
            registrations=Limit(self.register_address_burst, self.register_address_interval_seconds),
        )


def _at_least(least: int, value: N, info: ValidationInfo) -> N:
    if is_production(info) and value < least:
        raise ValueError(f"must be {least} or more in production")
    return value
