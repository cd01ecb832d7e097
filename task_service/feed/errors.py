"""The errors of the change feed, named by the fact."""

from servicekit.errors import InvalidField, Kind, ServiceError, Violation


class InvalidResumeToken(InvalidField):
    """The resume token is not one of ours, or is another user's."""

    reason = "INVALID_RESUME_TOKEN"

    def __init__(self) -> None:
        super().__init__(Violation("resume_token", "is not a token of yours"))


class ResumeTokenExpired(ServiceError):
    """What came after the resume token is not kept any more, or never was in this database."""

    kind = Kind.OUT_OF_RANGE
    reason = "RESUME_TOKEN_EXPIRED"
    message = "The changes since this resume token are not kept any more. List the tasks again and watch from there."


class ServiceStopping(ServiceError):
    """This replica stops; another one goes on."""

    kind = Kind.UNAVAILABLE
    reason = "SERVICE_STOPPING"
    message = "This replica stops. Resume the stream."
    retry_after_seconds = 0.0
