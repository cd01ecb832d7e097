"""The calls of ApiTokenService, and the exchange of an API token."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from task_manager_client.json_fields import sent_time
from task_manager_client.operation import Operation, nothing, segment
from task_manager_client.steps import Request
from task_manager_client.values import ApiToken, ExchangedToken, NewApiToken, api_tokens_of

_PATH: Final = "/api/v1/auth/tokens"


def create_api_token(name: str, scopes: Sequence[str], *, expires_at: datetime | None = None) -> Operation[NewApiToken]:
    """Creates an API token, by default for 90 days. Raises InvalidField, LimitReached, SessionRequired."""
    body: dict[str, Any] = {"name": name, "scopes": list(scopes)}
    if expires_at is not None:
        body["expires_at"] = sent_time(expires_at)
    return Operation(Request("POST", _PATH, body=body), NewApiToken.from_json, repeatable=False)


def list_api_tokens() -> Operation[tuple[ApiToken, ...]]:
    """Returns the account's API tokens, the newest first. Raises SessionRequired."""
    return Operation(Request("GET", _PATH), api_tokens_of, repeatable=True)


def delete_api_token(token_id: str) -> Operation[None]:
    """Deletes an API token: within 2 s nothing accepts it any more. Raises ApiTokenNotFound, SessionRequired."""
    return Operation(Request("DELETE", f"{_PATH}/{segment(token_id)}"), nothing, repeatable=False)


def exchange_api_token(api_token: str) -> Operation[ExchangedToken]:
    """Returns a short access token, for a service that is called without the gateway. Raises TokenInvalid, TooManyAttempts."""
    request = Request("POST", "/api/v1/auth/exchange", body={"api_token": api_token})
    return Operation(request, ExchangedToken.from_json, repeatable=True, authenticated=False)
