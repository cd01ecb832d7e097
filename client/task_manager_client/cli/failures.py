"""From errors to messages and exit statuses: 0 done, 1 failed, 2 usage, 3 not logged in, 4 not found, 5 conflict."""

import json
from typing import Final

from task_manager_client.cli.output import errors, plain
from task_manager_client.errors import (
    Conflict,
    EtagMismatch,
    InvalidArgument,
    InvalidCredentials,
    NotConnected,
    NotFound,
    NotLoggedIn,
    ProjectNotEmpty,
    TaskManagerError,
    TooManyAttempts,
    Unauthenticated,
)

FAILED: Final = 1
USAGE: Final = 2
NOT_LOGGED_IN: Final = 3
NOT_FOUND: Final = 4
CONFLICT: Final = 5

# The first class that matches counts.
_STATUSES: Final = (
    (NotLoggedIn, NOT_LOGGED_IN),
    (Unauthenticated, NOT_LOGGED_IN),
    (NotFound, NOT_FOUND),
    (Conflict, CONFLICT),
    (InvalidArgument, USAGE),
)
_ADVICE: Final = (
    (InvalidCredentials, "Without an account yet? Create one with: tm login --register"),
    (ProjectNotEmpty, "To delete it with its tasks, add --force"),
)


class UsageError(InvalidArgument):
    """The arguments of the command do not fit together."""


def exit_status(error: TaskManagerError) -> int:
    """Returns the exit status for an error."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), FAILED)


def report(error: TaskManagerError, url: str, *, as_json: bool) -> None:
    """Prints an error to the standard error output: one sentence and what to do, or JSON."""
    if as_json:
        shown = {"reason": error.reason, "message": error.message, "status": error.status, "metadata": dict(error.metadata)}
        errors().print(json.dumps({"error": shown}), markup=False, highlight=False, soft_wrap=True)
        return
    errors().print(f"[bold red]tm:[/] {plain(error.message)}", highlight=False, soft_wrap=True)
    if advice := _advice(error, url):
        errors().print(f"[dim]{plain(advice)}[/]", highlight=False, soft_wrap=True)


def _advice(error: TaskManagerError, url: str) -> str:
    if isinstance(error, NotLoggedIn):
        return f"Log in to {url} with: tm login"
    if isinstance(error, NotConnected):
        return f"Is {url} the right address? Set TM_URL, or log in elsewhere with: tm login --url URL"
    if isinstance(error, EtagMismatch):
        return f"Its etag is now {error.metadata.get('etag', 'another one')}."
    if isinstance(error, TooManyAttempts) and error.retry_after:
        return f"Try again in {error.retry_after:.0f} seconds."
    return next((advice for kind, advice in _ADVICE if isinstance(error, kind)), "")
