"""The commands `tm tokens`: the API tokens of the account."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from task_manager_client.cli import when
from task_manager_client.cli.options import AsJson, due
from task_manager_client.cli.output import errors, output, plain, print_json, printable, say
from task_manager_client.cli.place import Place
from task_manager_client.values import ApiToken

app = typer.Typer(
    help="API tokens for scripts, integrations and agents: long-lived, with chosen scopes, each can be deleted by itself. Only a login manages them.",
    no_args_is_help=True,
)

_Name = Annotated[str, typer.Argument(help="What the token is for.", metavar="NAME")]
_Scopes = Annotated[
    list[str],
    typer.Option("--scope", "-s", help="tasks:read, tasks:write (includes read), webhooks:manage, account:read. Can be given more than once."),
]
_Expires = Annotated[str, typer.Option(help=f"When it expires; without it after 90 days: {when.EXAMPLES}.", metavar="WHEN")]
_Id = Annotated[str, typer.Argument(help="The token's id, as `tm tokens list` shows it.", metavar="ID")]


@app.command("list")
def list_tokens(context: typer.Context, as_json: AsJson = False) -> None:
    """List the API tokens that have not expired, the newest first."""
    place: Place = context.obj
    with place.client() as client:
        tokens = client.list_api_tokens()
    if as_json:
        print_json([token.raw for token in tokens])
    elif tokens:
        output().print(_table(tokens, datetime.now().astimezone()))


@app.command()
def create(context: typer.Context, name: _Name, scope: _Scopes, expires: _Expires = "", as_json: AsJson = False) -> None:
    """Create an API token, and print its text. Nothing shows it again."""
    place: Place = context.obj
    with place.client() as client:
        created = client.create_api_token(name, scope, expires_at=_end(expires) if expires else None)
    if as_json:
        print_json({"api_token": created.api_token.raw, "token": created.token})
        return
    token, now = created.api_token, datetime.now().astimezone()
    told = f"{plain(token.name)}: {plain(', '.join(token.scopes))}, until {when.shown(token.expires_at, now)}. Nothing shows this token again:"
    errors().print(told, highlight=False, soft_wrap=True)
    # Alone on the standard output, so that a program can read it.
    say(plain(created.token))


@app.command()
def delete(context: typer.Context, token_id: _Id) -> None:
    """Delete an API token. Within 2 seconds nothing accepts it any more."""
    place: Place = context.obj
    with place.client() as client:
        client.delete_api_token(token_id)
    say("Deleted.")


def _end(text: str) -> datetime:
    """Returns the time that the option names; a day means 23:59. Raises UsageError."""
    at = due(text)
    return at if isinstance(at, datetime) else when.late_on(at)


def _table(tokens: Sequence[ApiToken], now: datetime) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("ID", style="magenta", no_wrap=True)
    for name in ("BEGINS", "NAME", "SCOPES", "USED", "EXPIRES"):
        table.add_column(name, overflow="fold")
    for token in tokens:
        used = "never" if token.last_used_at is None else when.shown(token.last_used_at, now)
        cells = (token.id, f"{token.hint}…", token.name, " ".join(token.scopes), used, when.shown(token.expires_at, now))
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table
