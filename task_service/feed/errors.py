"""The errors of the change feed."""

from servicekit.errors import InvalidField, Kind, ServiceError, Violation


class InvalidResumeToken(InvalidField):
    """The service did not issue this resume token, or issued it to another user."""

    reason = "INVALID_RESUME_TOKEN"

    def __init__(self) -> None:
        super().__init__(Violation("resume_token", "is not a token of yours"))


class ResumeTokenExpired(ServiceError):
    """The changes after the resume token are no longer stored, were never in this database, or are of a kind that only a newer version knows."""

    kind = Kind.OUT_OF_RANGE
    reason = "RESUME_TOKEN_EXPIRED"
    message = "The changes since this resume token are not kept any more. List the tasks again and watch from there."


class TooManyWatches(ServiceError):
    """The user has MAX_WATCHES_PER_USER streams on this replica."""

    kind = Kind.EXHAUSTED
    reason = "TOO_MANY_WATCHES"
    message = "You have too many open streams. Close one before you open another."
    # Streams are long: a client that does not know what else to do must not try each second.
    retry_after_seconds = 30.0


class ServiceStopping(ServiceError):
    """This replica is stopping. The client can resume the stream on another replica."""

    kind = Kind.UNAVAILABLE
    reason = "SERVICE_STOPPING"
    message = "This replica stops. Resume the stream."
    retry_after_seconds = 0.0
