"""The errors of signing keys, named by the fact."""

from servicekit.errors import Kind, ServiceError


class NoSigningKey(ServiceError):
    """There is no key to sign with: none has been read from the database, or what was read is too old."""

    kind = Kind.UNAVAILABLE
    reason = "DEPENDENCY_UNAVAILABLE"
    message = "There is no key to sign tokens with. Try again shortly."
    retry_after_seconds = 1.0


class KeyNotOpened(Exception):
    """A signing key in the database is sealed under a key encryption key that this process does not have."""
