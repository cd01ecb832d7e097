"""The errors of guessed passwords, named by the fact."""

from servicekit.errors import Kind, ServiceError


class TooManyAttempts(ServiceError):
    """Too many attempts with wrong passwords, on the account or from the address."""

    kind = Kind.EXHAUSTED
    reason = "TOO_MANY_ATTEMPTS"
    message = "Too many failed attempts. Try again later."

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__()
        self.retry_after_seconds = retry_after_seconds
