"""Logs calls whose token was rejected, as security events (OWASP ASVS 5 §16.3.2). Lines are limited, so that an attacker cannot fill the log."""

import time
from collections.abc import Callable
from typing import Final

import structlog

from servicekit.errors import AccessDenied, TokenInvalid
from servicekit.rpc.call import Call

# The first lines in each period are written; the others are counted, and the next line that is written has their number.
LINES: Final = 10
PERIOD_SECONDS: Final = 60.0
REASONS: Final = frozenset({TokenInvalid.reason, AccessDenied.reason})


class TokenLog:
    """Writes at most LINES lines in PERIOD_SECONDS for each process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = structlog.get_logger()
        self._clock = clock
        self._began = float("-inf")
        self._seen = 0
        self._suppressed = 0

    def failed(self, call: Call, reason: str, cause: str) -> None:
        """Logs the failure if it is a rejected token. `cause` has the types of the errors, without their messages.

        A stream whose token expires has a caller, and is no failed check.
        """
        if reason not in REASONS or call.caller is not None:
            return
        now = self._clock()
        if now - self._began >= PERIOD_SECONDS:
            self._began, self._seen = now, 0
        self._seen += 1
        if self._seen > LINES:
            self._suppressed += 1
            return
        fields = {"suppressed": self._suppressed} if self._suppressed else {}
        self._suppressed = 0
        event = "token_rejected"
        self._log.warning("security", security_event=event, address=call.client_address, request_id=call.request_id, cause=cause, **fields)
