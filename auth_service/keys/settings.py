"""The settings of the signing keys, shared by the service and the `keys` commands."""

from typing import Annotated, Final

from pydantic import Field, ValidationInfo, field_validator

from auth_service.keys.domain import KeyPolicy
from auth_service.keys.seal import KeySeal
from servicekit.access.tokens import MAX_LIFETIME_SECONDS
from servicekit.process.settings import SealSettings

YEAR_SECONDS: Final = 31_536_000


class KeySettings(SealSettings):
    """The settings for the encryption and the lifetime of signing keys."""

    key_rotation_seconds: Annotated[float, Field(ge=1, le=YEAR_SECONDS)] = 2_592_000.0
    # The time from a key's publication to its first signature. Longer than the gateway (JWKS_REFRESH_SECONDS) and the services (60 s) cache the set.
    key_lead_seconds: Annotated[float, Field(ge=0.5, le=86_400)] = 300.0
    # Access tokens (RFC 9068) cannot be revoked at all verifiers at once, so none lives longer than 15 minutes.
    access_token_ttl_seconds: Annotated[int, Field(ge=1, le=MAX_LIFETIME_SECONDS)] = MAX_LIFETIME_SECONDS

    @field_validator("key_lead_seconds")
    @classmethod
    def _key_lead_is_shorter_than_its_time(cls, value: float, info: ValidationInfo) -> float:
        if value >= info.data.get("key_rotation_seconds", float("inf")):
            raise ValueError("must be less than KEY_ROTATION_SECONDS")
        return value

    @property
    def key_seal(self) -> KeySeal:
        """Encrypts and decrypts the private keys."""
        return KeySeal(self.key_encryption_keys)

    @property
    def key_policy(self) -> KeyPolicy:
        """How long keys sign and stay published."""
        return KeyPolicy(self.key_rotation_seconds, self.key_lead_seconds, self.access_token_ttl_seconds)
