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
