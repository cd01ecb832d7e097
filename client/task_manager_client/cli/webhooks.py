"""The commands `tm webhooks`: the webhooks of the account, their secrets, tests and deliveries."""

from collections.abc import Sequence
from typing import Annotated, Final, cast

import typer

from task_manager_client.cli.failures import FAILED, UsageError
from task_manager_client.cli.find import find_webhook
from task_manager_client.cli.listen import listen
from task_manager_client.cli.options import AsJson, Etag, WebhookId, now, quoted
from task_manager_client.cli.output import errors, output, plain, print_json, say, short_id
from task_manager_client.cli.place import Place
from task_manager_client.cli.webhook_output import deliveries_table, outcome, webhook_card, webhook_table
from task_manager_client.webhook_values import WebhookDetails, WebhookFields, WebhookState

# As many as people read. Programs get all.
_LIMIT: Final = 50
_ALL: Final = "all"
_KEEP: Final = "Nothing shows this secret again:"

app = typer.Typer(
    help="Webhooks: URLs to which the server sends each change, signed. To try it out: tm webhooks listen --create", no_args_is_help=True
)

_Url = Annotated[str, typer.Argument(help="Where the server sends the changes: https, and an address on the internet.", metavar="URL")]
_NewUrl = Annotated[str | None, typer.Option("--url", "-u", help="The new URL.", metavar="URL")]
_Events = Annotated[
    list[str] | None,
    typer.Option(
        "--event", "-e", help="A type of change, for example task.completed; all for all types. Can be given more than once.", metavar="TYPE"
    ),
]
_Description = Annotated[str | None, typer.Option("--description", "-m", help="What it is for.", metavar="TEXT")]
_Pause = Annotated[bool | None, typer.Option("--pause/--resume", help="Stop sending, or go on where it stopped.", show_default=False)]
_Failed = Annotated[bool, typer.Option("--failed", "-f", help="Only those that failed.")]
_Limit = Annotated[
    int | None, typer.Option("--limit", "-n", min=0, help="Show at most this many; 0 shows all. [default: 50; with --json all]", metavar="N")
]


@app.command("list")
def list_webhooks(context: typer.Context, as_json: AsJson = False) -> None:
    """List the webhooks, the oldest first."""
    place: Place = context.obj
    with place.client() as client:
        webhooks = client.list_webhooks()
    if as_json:
        print_json([webhook.raw for webhook in webhooks])
    elif webhooks:
        output().print(webhook_table(webhooks, now()))
    elif output().is_terminal:
        errors().print("[dim]No webhooks. Create one with: tm webhooks create URL[/]", highlight=False)


@app.command()
def create(context: typer.Context, url: _Url, event: _Events = None, description: _Description = None, as_json: AsJson = False) -> None:
    """Create a webhook, which gets the changes from now on, and print its secret. Nothing shows the secret again."""
    place: Place = context.obj
    with place.client() as client:
        created = client.create_webhook(url, **_details(event, description))
    if as_json:
        print_json({"webhook": created.webhook.raw, "secret": created.secret})
        return
    errors().print(f"Created [magenta]{short_id(created.webhook.id)}[/] {plain(created.webhook.url)}. {_KEEP}", highlight=False, soft_wrap=True)
    # Alone on the standard output, so that a program can read it.
    say(plain(created.secret))


@app.command()
def show(context: typer.Context, id: WebhookId, as_json: AsJson = False) -> None:  # noqa: A002 - the name in the help
    """Show everything about a webhook but its secret."""
    place: Place = context.obj
    with place.client() as client:
        webhook = client.get_webhook(find_webhook(client, id))
    if as_json:
        print_json(webhook.raw)
    else:
        output().print(webhook_card(webhook, now()))


@app.command()
def edit(
    context: typer.Context,
    id: WebhookId,  # noqa: A002 - the name in the help
    url: _NewUrl = None,
    event: _Events = None,
    description: _Description = None,
    pause: _Pause = None,
    etag: Etag = "",
    as_json: AsJson = False,
) -> None:
    """Change a webhook: only what the options name.

    After --pause the server sends nothing more, but for one request that has begun.
    """
    fields = cast("WebhookFields", _details(event, description))
    if url is not None:
        fields["url"] = url
    if pause is not None:
        fields["state"] = WebhookState.PAUSED if pause else WebhookState.ACTIVE
    if not fields:
        raise UsageError("there is nothing to change: give an option, for example --pause")
    place: Place = context.obj
    with place.client() as client:
        webhook = client.update_webhook(find_webhook(client, id), etag=quoted(etag), **fields)
    if as_json:
        print_json(webhook.raw)
    else:
        say(f"Changed [magenta]{short_id(webhook.id)}[/] {plain(webhook.url)}  [dim]{plain(webhook.raw['state'].lower())}[/]")


@app.command()
def rm(context: typer.Context, id: WebhookId, etag: Etag = "", as_json: AsJson = False) -> None:  # noqa: A002 - the name in the help
    """Delete a webhook, its secret and its deliveries. The server sends nothing more, but for one request that has begun."""
    place: Place = context.obj
    with place.client() as client:
        webhook_id = find_webhook(client, id)
        client.delete_webhook(webhook_id, etag=quoted(etag))
    if as_json:
        print_json({"id": webhook_id})
    else:
        say("Deleted.")


@app.command()
def rotate(context: typer.Context, id: WebhookId, etag: Etag = "", as_json: AsJson = False) -> None:  # noqa: A002 - the name in the help
    """Give a webhook another secret, and print it. For 24 hours the server signs with the old one too."""
    place: Place = context.obj
    with place.client() as client:
        webhook_id = find_webhook(client, id)
        secret = client.rotate_webhook_secret(webhook_id, etag=quoted(etag))
    if as_json:
        print_json({"id": webhook_id, "secret": secret})
        return
    errors().print(f"The old secret counts for 24 hours more. {_KEEP}", highlight=False, soft_wrap=True)
    say(plain(secret))


@app.command("test")
def send_test(context: typer.Context, id: WebhookId, as_json: AsJson = False) -> None:  # noqa: A002 - the name in the help
    """Send a ping to a webhook, and show what came of it. The exit status is 1 if it failed."""
    place: Place = context.obj
    with place.client() as client:
        delivery = client.test_webhook(find_webhook(client, id))
    if as_json:
        print_json(delivery.raw)
    else:
        output().print(outcome(delivery))
    if not delivery.succeeded:
        raise typer.Exit(FAILED)


@app.command()
def deliveries(
    context: typer.Context,
    id: WebhookId,  # noqa: A002 - the name in the help
    failed: _Failed = False,
    limit: _Limit = None,
    as_json: AsJson = False,
) -> None:
    """List the attempts of the last 7 days to send to a webhook, the newest first."""
    limit = (0 if as_json else _LIMIT) if limit is None else limit
    place: Place = context.obj
    with place.client() as client:
        found = [each for each in client.list_webhook_deliveries(find_webhook(client, id)) if not (failed and each.succeeded)]
    shown = found[: limit or None]
    if as_json:
        print_json([delivery.raw for delivery in shown])
        return
    if shown:
        output().print(deliveries_table(shown, now()))
    if output().is_terminal and len(shown) < len(found):
        errors().print(f"[dim]Only the newest {limit}. All of them: tm webhooks deliveries {short_id(id)} --limit 0[/]", highlight=False)


def _details(event_types: Sequence[str] | None, description: str | None) -> WebhookDetails:
    details: WebhookDetails = {}
    if event_types:
        details["event_types"] = [] if list(event_types) == [_ALL] else list(event_types)
    if description is not None:
        details["description"] = description
    return details


app.command()(listen)
