"""The errors of the limits on password guesses and on registrations."""

from servicekit.errors import Kind, Overloaded, ServiceError


class LimitReached(ServiceError):
    """A limit on attempts is reached until the given time has passed."""

    def __init__(self, retry_after_seconds: float) -> None:
        super().__init__()
        self.retry_after_seconds = retry_after_seconds


class TooManyAttempts(LimitReached):
    """There were too many failed password attempts for the account or from the client address."""

    kind = Kind.EXHAUSTED
    reason = "TOO_MANY_ATTEMPTS"
    message = "Too many failed attempts. Try again later."


class TooManyRegistrations(LimitReached):
    """There were too many registrations from the client address."""

    kind = Kind.EXHAUSTED
    reason = "TOO_MANY_REGISTRATIONS"
    message = "Too many accounts were registered from this address. Try again later."


class TooManyHashes(Overloaded):
    """So many passwords wait to be hashed that another one would come too late."""

    message = "Too many passwords are waiting to be checked. Try again shortly."


class AttemptsUnderWay(Overloaded):
    """So many attempts are under way that a limit would be reached if all of them failed."""

    message = "Too many attempts are under way for this account or from this address. Try again shortly."
