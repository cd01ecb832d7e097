"""The errors of the limits on password guesses."""

from servicekit.errors import Kind, ServiceError


class TooManyAttempts(ServiceError):
    """There were too many failed password attempts for the account or from the client address."""

    kind = Kind.EXHAUSTED
    reason = "TOO_MANY_ATTEMPTS"
    message = "Too many failed attempts. Try again later."

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__()
        self.retry_after_seconds = retry_after_seconds
