"""The errors of accounts."""

from servicekit.errors import Kind, ServiceError


class EmailTaken(ServiceError):
    """The email already has an account. The comparison ignores case."""

    kind = Kind.ALREADY_EXISTS
    reason = "EMAIL_TAKEN"
    message = "There is an account with this email already."


class UserNotFound(ServiceError):
    """The account of the access token no longer exists."""

    kind = Kind.NOT_FOUND
    reason = "USER_NOT_FOUND"
    message = "This account does not exist any more."


class WrongPassword(ServiceError):
    """The password given to confirm the call is not the password of the caller's account."""

    kind = Kind.DENIED
    reason = "WRONG_PASSWORD"
    message = "The password is wrong."
