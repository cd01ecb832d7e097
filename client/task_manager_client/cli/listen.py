"""The command `tm webhooks listen`: receives webhooks on this machine, to try them out in development."""

import signal
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Annotated, Final

import typer

from task_manager_client.cli.failures import UsageError
from task_manager_client.cli.options import AsJson, now
from task_manager_client.cli.output import errors, output, plain, print_json
from task_manager_client.cli.place import Place
from task_manager_client.cli.receiver import Event, Receiver, Refusal
from task_manager_client.cli.signatures import UnreadableSecret, key_of
from task_manager_client.cli.webhook_output import event_line

_PORT: Final = 8787
_DESCRIPTION: Final = "tm webhooks listen"
# How many ids of messages the command remembers, to mark those that come again.
_REMEMBERED: Final = 10_000

_Port = Annotated[int, typer.Option("--port", "-p", min=0, max=65_535, help="The port on 127.0.0.1; 0 takes a free one.")]
_SecretFile = Annotated[
    Path | None, typer.Option("--secret-file", help="A file with the webhook's secret; during a rotation with both, each on a line.", metavar="FILE")
]
_SecretStdin = Annotated[bool, typer.Option("--secret-stdin", help="Read the secrets from the standard input.")]
_Create = Annotated[bool, typer.Option("--create", help="Create a webhook for this receiver, and delete it at the end.")]
_Events = Annotated[list[str] | None, typer.Option("--event", "-e", help="With --create: only this type of change. Can be repeated.", metavar="TYPE")]
_Limit = Annotated[int, typer.Option("--limit", "-n", min=0, help="End after this many events; 0: go on until Ctrl-C.", metavar="N")]


def listen(
    context: typer.Context,
    port: _Port = _PORT,
    secret_file: _SecretFile = None,
    secret_stdin: _SecretStdin = False,
    create: _Create = False,
    event: _Events = None,
    limit: _Limit = 0,
    as_json: AsJson = False,
) -> None:
    """Receive webhooks on this machine: verify each event, and print it on a line, until Ctrl-C.

    A server in production does not send to this machine. That of `make run` does: tm webhooks listen --create
    """
    if [secret_file is not None, secret_stdin, create].count(True) != 1:
        raise UsageError("give one of --create, --secret-file and --secret-stdin")
    if event and not create:
        raise UsageError("--event belongs to --create: give both")
    keys = () if create else _keys(sys.stdin.read() if secret_file is None else _content(secret_file))
    place: Place = context.obj
    receiver = _bound(port)
    interrupts = _Interrupts()
    prepared = _webhook(place, receiver, event or ()) if create else _known(receiver, keys)
    with suppress(KeyboardInterrupt), prepared, receiver.running(), interrupts.taken():
        errors().print(f"[dim]Listening on {receiver.url}. Ctrl-C ends it.[/]", highlight=False)
        _print_events(receiver, limit, as_json=as_json)


class _Interrupts:
    """SIGINT and SIGTERM raise KeyboardInterrupt inside `taken`, once. Elsewhere they wait: no signal may leave a webhook that nobody deletes."""

    def __init__(self) -> None:
        self._came = False
        self._raises = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._come)

    @contextmanager
    def taken(self) -> Iterator[None]:
        self._raises = True
        try:
            if self._came:
                raise KeyboardInterrupt
            yield
        finally:
            self._raises = False

    def _come(self, *_: object) -> None:
        self._came = True
        if self._raises:
            self._raises = False
            raise KeyboardInterrupt


@contextmanager
def _known(receiver: Receiver, keys: Sequence[bytes]) -> Iterator[None]:
    receiver.keys = keys
    yield


@contextmanager
def _webhook(place: Place, receiver: Receiver, event_types: Sequence[str]) -> Iterator[None]:
    """The receiver has a webhook of its own, as long as the context lasts."""
    with place.client() as client:
        created = client.create_webhook(receiver.url, description=_DESCRIPTION, event_types=list(event_types))
        try:
            receiver.keys = (key_of(created.secret),)
            yield
        finally:
            client.delete_webhook(created.webhook.id)


def _print_events(receiver: Receiver, limit: int, *, as_json: bool) -> None:
    """Prints what arrives, until it has printed `limit` events."""
    seen: OrderedDict[str, None] = OrderedDict()
    for _ in range(limit) if limit else count():
        event = _next(receiver)
        is_repeated = event.id in seen
        seen[event.id] = None
        if len(seen) > _REMEMBERED:
            seen.popitem(last=False)
        if as_json:
            print_json({"message_id": event.id, "repeated": is_repeated, **event.body})
        else:
            output().print(event_line(event, now(), is_repeated=is_repeated), overflow="ellipsis", no_wrap=True)


def _next(receiver: Receiver) -> Event:
    """Returns the next event. Prints why requests before it were refused."""
    while isinstance(arrived := receiver.arrived.get(), Refusal):
        errors().print(f"[yellow]tm:[/] refused a request: {plain(arrived.reason)}", highlight=False, soft_wrap=True)
    return arrived


def _bound(port: int) -> Receiver:
    try:
        return Receiver(port)
    except OSError as error:
        raise UsageError(f"port {port} of this machine is not free: {error.strerror}; take another one with --port") from error


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error


def _keys(text: str) -> Sequence[bytes]:
    """Returns the keys of the secrets, one on each line. Raises UsageError."""
    try:
        keys = [key_of(line.strip()) for line in text.splitlines() if line.strip()]
    except UnreadableSecret as error:
        raise UsageError(str(error)) from error
    if not keys:
        raise UsageError("there is no secret")
    return keys
