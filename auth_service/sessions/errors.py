"""The errors of sessions, named by the fact."""

from servicekit.errors import Kind, ServiceError


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


class SessionNotFound(ServiceError):
    """The caller has no such session: it never was, has ended, or is somebody else's. The answer does not tell which."""

    kind = Kind.NOT_FOUND
    reason = "SESSION_NOT_FOUND"
    message = "There is no such session."
