"""The errors of the auth service, named by the fact."""

from servicekit.errors import Kind, ServiceError


class EmailTaken(ServiceError):
    """The email, in any case of letters, has an account."""

    kind = Kind.ALREADY_EXISTS
    reason = "EMAIL_TAKEN"
    message = "There is an account with this email already."


class InvalidCredentials(ServiceError):
    """Email and password do not fit together. Which of them is wrong is never told."""

    kind = Kind.UNAUTHENTICATED
    reason = "INVALID_CREDENTIALS"
    message = "Email or password is wrong."


class RefreshTokenInvalid(ServiceError):
    """The refresh token is unknown, used up, ended or expired."""

    kind = Kind.UNAUTHENTICATED
    reason = "REFRESH_TOKEN_INVALID"
    message = "The refresh token is not valid. Log in again."


class UserNotFound(ServiceError):
    """The account that a token speaks for does not exist any more."""

    kind = Kind.NOT_FOUND
    reason = "USER_NOT_FOUND"
    message = "This account does not exist any more."


class TooManyAttempts(ServiceError):
    """Too many attempts with wrong passwords, on the account or from the address."""

    kind = Kind.EXHAUSTED
    reason = "TOO_MANY_ATTEMPTS"
    message = "Too many failed attempts. Try again later."

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__()
        self.retry_after_seconds = retry_after_seconds


class WrongPassword(ServiceError):
    """The password that confirms a call is not that of the caller's account."""

    kind = Kind.DENIED
    reason = "WRONG_PASSWORD"
    message = "The password is wrong."


class SessionNotFound(ServiceError):
    """The caller has no such session: it never was, has ended, or is somebody else's. The answer does not tell which."""

    kind = Kind.NOT_FOUND
    reason = "SESSION_NOT_FOUND"
    message = "There is no such session."


class NoSigningKey(ServiceError):
    """There is no key to sign with: none has been read from the database, or what was read is too old."""

    kind = Kind.UNAVAILABLE
    reason = "DEPENDENCY_UNAVAILABLE"
    message = "There is no key to sign tokens with. Try again shortly."
    retry_after_seconds = 1.0


class KeyNotOpened(Exception):
    """A signing key in the database is sealed under a key encryption key that this process does not have."""
