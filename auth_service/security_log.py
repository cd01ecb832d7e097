"""What operators must be able to see of attacks and of what users do with their accounts (OWASP ASVS 5 §16.3): one log line each, and a count.

Ids, the client's address and the request id; never an email, a password or a token.
"""

from enum import StrEnum
from uuid import UUID

import structlog
from prometheus_client import CollectorRegistry, Counter

from auth_service.client import Client


class SecurityEvent(StrEnum):
    """What is logged, as `security_event`."""

    ACCOUNT_CREATED = "account_created"
    LOGIN_SUCCEEDED = "login_succeeded"
    LOGIN_FAILED = "login_failed"
    ATTEMPTS_LIMITED = "attempts_limited"
    WRONG_PASSWORD = "wrong_password"  # noqa: S105 - a name
    REFRESH_TOKEN_REUSED = "refresh_token_reused"  # noqa: S105 - a name
    LOGGED_OUT = "logged_out"
    SESSION_REVOKED = "session_revoked"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 - a name
    ACCOUNT_DELETED = "account_deleted"


# What an operator may want to be woken for.
WARNINGS = frozenset({SecurityEvent.REFRESH_TOKEN_REUSED, SecurityEvent.ATTEMPTS_LIMITED})


class SecurityLog:
    """Writes the lines and counts them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._log = structlog.get_logger()
        total = Counter("auth_security_events_total", "Security events, by what happened.", ["event"], registry=registry)
        self._counts = {event: total.labels(event) for event in SecurityEvent}

    def record(self, event: SecurityEvent, client: Client, *, user_id: UUID | None = None, session_id: UUID | None = None) -> None:
        """One event. The user is unknown where nobody is logged in and the email fits no account, or is not told to fit one."""
        self._counts[event].inc()
        ids = {"user_id": user_id, "session_id": session_id}
        fields = {name: str(value) for name, value in ids.items() if value is not None}
        write = self._log.warning if event in WARNINGS else self._log.info
        write("security", security_event=str(event), address=client.address, request_id=client.request_id, **fields)
