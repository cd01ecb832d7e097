"""The commands login, logout and whoami."""

import sys
from contextlib import suppress
from dataclasses import replace
from typing import Annotated

import typer

from task_manager_client.cli.failures import UsageError
from task_manager_client.cli.options import AsJson
from task_manager_client.cli.output import errors, plain, print_json, say
from task_manager_client.cli.place import AGENT, Place, checked_url, is_loopback
from task_manager_client.client import Client
from task_manager_client.errors import NotLoggedIn, TaskManagerError
from task_manager_client.profiles import Login
from task_manager_client.retries import Retries
from task_manager_client.tokens import MemoryStore, Tokens

_Url = Annotated[
    str, typer.Option(help="The address of the system. Without it: TM_URL, or the last login's, or http://localhost:8080.", metavar="URL")
]
_Email = Annotated[str, typer.Option(help="The account's email. Without it, tm asks.", metavar="EMAIL")]
_PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from the standard input.")]
_Register = Annotated[bool, typer.Option("--register", help="Create the account first.")]
_Name = Annotated[str, typer.Option(help="With --register: your name.", metavar="NAME")]


def login(
    context: typer.Context,
    url: _Url = "",
    email: _Email = "",
    password_stdin: _PasswordStdin = False,
    register: _Register = False,
    name: _Name = "",
    as_json: AsJson = False,
) -> None:
    """Log in, and stay logged in on this machine."""
    place: Place = context.obj
    place.url_given = url or place.url_given
    where = place.url
    if where.startswith("http://") and not is_loopback(where):
        errors().print(f"[yellow]tm:[/] {plain(where)} is not encrypted: others on the network can read your password", highlight=False)
    known = place.profile().login
    email = email or typer.prompt("Email", default=known.email if known else None, err=True)
    password = _password(from_stdin=password_stdin, is_new=register)
    store = MemoryStore()
    with Client(where, tokens=store, user_agent=AGENT) as client:
        if register:
            client.register(email, password, name or typer.prompt("Your name", default=email.partition("@")[0], err=True))
        client.login(email, password)
        user = client.get_me()
    old = place.profile().begin(Login(where, email), store.load())
    if known is not None and old is not None:
        _end(known, old)
    if as_json:
        print_json({"url": where, "user": user.raw})
    else:
        say(f"Logged in to {plain(where)} as [bold]{plain(user.name)}[/] ({plain(user.email)}).")
        if place.token:
            errors().print("[yellow]tm:[/] TM_TOKEN is set, and commands use it instead of this login", highlight=False)


def logout(context: typer.Context, as_json: AsJson = False) -> None:
    """End the session on this machine."""
    place: Place = context.obj
    if place.token:
        raise UsageError("TM_TOKEN is set: unset it to log out of the profile")
    url = place.url
    if place.profile(url).load() is None:
        raise NotLoggedIn("you are not logged in")
    with place.client() as client:
        try:
            client.logout()
        except TaskManagerError as error:
            if place.profile(url).load() is not None:
                raise
            raise replace(error, message=f"this machine has forgotten its tokens, but the session has perhaps not ended: {error.message}") from error
    if as_json:
        print_json({"url": url, "profile": place.profile_name})
    else:
        say("Logged out.")


def whoami(context: typer.Context, as_json: AsJson = False) -> None:
    """Show who is logged in, and where."""
    place: Place = context.obj
    with place.client() as client:
        user = client.get_me()
    if as_json:
        print_json({"url": place.url, "profile": place.profile_name, "user": user.raw})
    else:
        say(f"[bold]{plain(user.name)}[/] ({plain(user.email)}) at {plain(place.url)}")


def _password(*, from_stdin: bool, is_new: bool) -> str:
    if from_stdin:
        # Only the end of the line is not part of the password.
        password = sys.stdin.readline().rstrip("\r\n")
        if not password:
            raise UsageError("the standard input has no password")
        return password
    entered: str = typer.prompt("Password", hide_input=True, confirmation_prompt=is_new, err=True)
    return entered


def _end(login: Login, tokens: Tokens) -> None:
    """Ends the session that the profile had, if the server answers the first attempt."""
    with suppress(TaskManagerError), Client(checked_url(login.url), tokens=MemoryStore(tokens), retries=Retries(attempts=1)) as client:
        client.logout()
