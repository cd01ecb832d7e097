"""The calls of AuthService and UserService."""

from dataclasses import replace
from functools import partial
from typing import Final

from task_manager_client.operation import Operation, nothing, segment
from task_manager_client.steps import Request
from task_manager_client.values import Session, TokenAnswer, User, sessions_of

_AUTH: Final = "/api/v1/auth"
_ME: Final = "/api/v1/users/me"

_Call = partial(Request, "POST")


def register(email: str, password: str, name: str) -> Operation[User]:
    """Creates an account. Raises InvalidField, EmailTaken, TooManyAttempts."""
    request = _Call(f"{_AUTH}/register", body={"email": email, "password": password, "name": name})
    return Operation(request, User.from_json, repeatable=False, authenticated=False)


def login(email: str, password: str) -> Operation[TokenAnswer]:
    """Creates a session. Raises InvalidCredentials, TooManyAttempts. If the answer is lost, a repeated login leaves an unused session behind."""
    request = _Call(f"{_AUTH}/login", body={"email": email, "password": password})
    return Operation(request, TokenAnswer.from_json, repeatable=True, authenticated=False)


def refresh_token(refresh_token: str, timeout: float | None = None) -> Operation[TokenAnswer]:
    """Continues a session. Within 10 s, the server answers a repeated request with the same tokens. Raises RefreshTokenInvalid."""
    request = replace(_Call(f"{_AUTH}/refresh", body={"refresh_token": refresh_token}), timeout=timeout)
    return Operation(request, TokenAnswer.from_json, repeatable=True, authenticated=False)


def logout(refresh_token: str) -> Operation[None]:
    """Ends a session."""
    return Operation(_Call(f"{_AUTH}/logout", body={"refresh_token": refresh_token}), nothing, repeatable=True, authenticated=False)


def list_sessions() -> Operation[tuple[Session, ...]]:
    """Returns the account's sessions, the most recently used first."""
    return Operation(Request("GET", f"{_AUTH}/sessions"), sessions_of, repeatable=True)


def revoke_session(session_id: str) -> Operation[None]:
    """Ends a session of the account. Raises SessionNotFound."""
    return Operation(Request("DELETE", f"{_AUTH}/sessions/{segment(session_id)}"), nothing, repeatable=False)


def change_password(current_password: str, new_password: str, *, revoke_api_tokens: bool = False) -> Operation[None]:
    """Changes the password and ends all other sessions, and all API tokens if told. Raises WrongPassword, InvalidField."""
    body = {"current_password": current_password, "new_password": new_password}
    request = _Call(f"{_AUTH}/password", body=body | ({"revoke_api_tokens": True} if revoke_api_tokens else {}))
    return Operation(request, nothing, repeatable=False)


def get_me() -> Operation[User]:
    """Returns the account."""
    return Operation(Request("GET", _ME), User.from_json, repeatable=True)


def update_me(*, name: str) -> Operation[User]:
    """Changes the display name. Raises InvalidField."""
    return Operation(Request("PATCH", _ME, {"update_mask": "name"}, body={"name": name}), User.from_json, repeatable=True)


def delete_me(password: str) -> Operation[None]:
    """Deletes the account and its tasks. Raises WrongPassword."""
    return Operation(_Call(f"{_ME}:delete", body={"password": password}), nothing, repeatable=False)
