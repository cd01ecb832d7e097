"""The description of a call: its request, whether it may be repeated, and how to read its answer."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote
from uuid import uuid4

from task_manager_client.errors import InvalidArgument, UnexpectedAnswer, error_of
from task_manager_client.json_fields import Json
from task_manager_client.steps import Reply, Request

T = TypeVar("T")

IDEMPOTENCY_KEY: Final = "idempotency-key"


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """One call of the API.

    repeatable: sending the request twice has the same effect as once, so that it can be sent again if its answer is lost.
    authenticated: the call needs an access token.
    """

    request: Request
    parse: Callable[[Json], T]
    repeatable: bool
    authenticated: bool = True

    def authorized(self, access_token: str) -> "Operation[T]":
        """Returns the operation with an access token."""
        headers = {**self.request.headers, "authorization": f"Bearer {access_token}"}
        return replace(self, request=replace(self.request, headers=headers))

    def read(self, reply: Reply) -> T:
        """Returns the answer's value. Raises the error that the answer describes, and UnexpectedAnswer."""
        if reply.is_error:
            raise error_of(reply.status, reply.headers, reply.body)
        try:
            return self.parse(json.loads(reply.body))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnexpectedAnswer("the answer is not one of this API: is the address right?", status=reply.status) from error


def segment(text: str) -> str:
    """Returns an id as one segment of a path, whatever characters it has. Raises InvalidArgument for "", "." and "..": they lead to another path."""
    if text in {"", ".", ".."}:
        raise InvalidArgument(f"{text!r} is not an id")
    return quote(text, safe="")


def nothing(_: Json) -> None:
    """Reads an answer without content."""


def write_headers(idempotency_key: str | None, etag: str | None = None) -> Mapping[str, str]:
    """Returns the headers that make a write safe to repeat, with a new key if none is given, and conditional on an etag."""
    headers = {IDEMPOTENCY_KEY: idempotency_key or str(uuid4())}
    return headers if not etag else {**headers, "if-match": etag}


def given(**parameters: Any) -> dict[str, Any]:
    """Returns the query parameters that differ from their default."""
    return {name: "true" if value is True else value for name, value in parameters.items() if value}
