"""The errors of accounts, named by the fact."""

from servicekit.errors import Kind, ServiceError


class EmailTaken(ServiceError):
    """The email, in any case of letters, has an account."""

    kind = Kind.ALREADY_EXISTS
    reason = "EMAIL_TAKEN"
    message = "There is an account with this email already."


class UserNotFound(ServiceError):
    """The account that a token speaks for does not exist any more."""

    kind = Kind.NOT_FOUND
    reason = "USER_NOT_FOUND"
    message = "This account does not exist any more."


class WrongPassword(ServiceError):
    """The password that confirms a call is not that of the caller's account."""

    kind = Kind.DENIED
    reason = "WRONG_PASSWORD"
    message = "The password is wrong."
