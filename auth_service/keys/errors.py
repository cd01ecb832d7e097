"""The errors of signing keys."""

from servicekit.errors import Kind, ServiceError


class NoSigningKey(ServiceError):
    """This replica has no key to sign with: it has read none from the database, or its last read is older than KEY_LEAD_SECONDS."""

    kind = Kind.UNAVAILABLE
    reason = "DEPENDENCY_UNAVAILABLE"
    message = "There is no key to sign tokens with. Try again shortly."
    retry_after_seconds = 1.0


class KeyNotOpened(Exception):
    """A signing key in the database is encrypted with a key encryption key that this process does not have."""
