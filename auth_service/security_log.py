"""Logs and counts security events: attacks, and what users do with their accounts (OWASP ASVS 5 §16.3).

A log line has ids, the client address and the request id. It never has an email, a password or a token.
"""

from enum import StrEnum
from uuid import UUID

import structlog
from prometheus_client import CollectorRegistry, Counter

from auth_service.client import Client


class SecurityEvent(StrEnum):
    """The values of `security_event` in the log."""

    ACCOUNT_CREATED = "account_created"
    LOGIN_SUCCEEDED = "login_succeeded"
    LOGIN_FAILED = "login_failed"
    ATTEMPTS_LIMITED = "attempts_limited"
    REGISTRATIONS_LIMITED = "registrations_limited"
    WRONG_PASSWORD = "wrong_password"  # noqa: S105 - a name
    REFRESH_TOKEN_REUSED = "refresh_token_reused"  # noqa: S105 - a name
    LOGGED_OUT = "logged_out"
    SESSION_REVOKED = "session_revoked"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 - a name
    API_TOKEN_CREATED = "api_token_created"  # noqa: S105 - a name
    API_TOKEN_DELETED = "api_token_deleted"  # noqa: S105 - a name
    API_TOKENS_REVOKED = "api_tokens_revoked"
    API_TOKEN_REFUSED = "api_token_refused"  # noqa: S105 - a name
    ACCOUNT_DELETED = "account_deleted"


# Logged as warnings, because an operator may want alerts for them.
WARNINGS = frozenset({SecurityEvent.REFRESH_TOKEN_REUSED, SecurityEvent.ATTEMPTS_LIMITED, SecurityEvent.REGISTRATIONS_LIMITED})


class SecurityLog:
    """Writes the log lines and counts the events."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._log = structlog.get_logger()
        total = Counter("auth_security_events_total", "Security events, by event.", ["event"], registry=registry)
        self._counts = {event: total.labels(event) for event in SecurityEvent}

    def record(self, event: SecurityEvent, client: Client, *, user_id: UUID | None = None, session_id: UUID | None = None) -> None:
        """Logs and counts one event. For an API token, `session_id` is its id.

        A failed or limited login has no `user_id`: the log does not say whether the email has an account.
        """
        self._counts[event].inc()
        ids = {"user_id": user_id, "session_id": session_id}
        fields = {name: str(value) for name, value in ids.items() if value is not None}
        write = self._log.warning if event in WARNINGS else self._log.info
        write("security", security_event=str(event), address=client.address, request_id=client.request_id, **fields)
