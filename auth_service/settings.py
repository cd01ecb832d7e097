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
# The gateway fetches the keys each 30 seconds and the services each 60, and this service reads them each 15.
MIN_PRODUCTION_LEAD_SECONDS = 120


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
