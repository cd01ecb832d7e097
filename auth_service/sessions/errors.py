"""The errors of sessions."""

from servicekit.errors import Kind, ServiceError


class InvalidCredentials(ServiceError):
    """The email has no account, or the password is wrong. The answer never says which."""

    kind = Kind.UNAUTHENTICATED
    reason = "INVALID_CREDENTIALS"
    message = "Email or password is wrong."


class RefreshTokenInvalid(ServiceError):
    """The refresh token is unknown or used up, or its session has ended or expired."""

    kind = Kind.UNAUTHENTICATED
    reason = "REFRESH_TOKEN_INVALID"
    message = "The refresh token is not valid. Log in again."


class SessionNotFound(ServiceError):
    """The caller has no such session: it never existed, has ended or expired, or belongs to another user. The answer does not say which."""

    kind = Kind.NOT_FOUND
    reason = "SESSION_NOT_FOUND"
    message = "There is no such session."
