"""How `tm webhooks` shows webhooks, attempts to send, and what a receiver got."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from rich.table import Table
from rich.text import Text

from task_manager_client.cli.output import printable, short_id
from task_manager_client.cli.receiver import Event
from task_manager_client.cli.when import shown
from task_manager_client.webhook_values import Webhook, WebhookDelivery, WebhookState

_STATES: Final = {WebhookState.ACTIVE: "green", WebhookState.PAUSED: "yellow", WebhookState.DISABLED: "red", WebhookState.UNKNOWN: ""}
_ALL_TYPES: Final = "all"
_VERBS: Final = {"created": "green", "updated": "cyan", "completed": "green", "deleted": "red", "restored": "yellow", "reminder": "bold magenta"}
# They change with every other field.
_UNTOLD: Final = frozenset({"updated_at", "etag"})


def webhook_table(webhooks: Sequence[Webhook], now: datetime) -> Table:
    """Returns a list of webhooks."""
    table = _table("ID", "STATE", "URL", "EVENTS", "LAST SUCCESS", "DESCRIPTION")
    for webhook in webhooks:
        cells = (printable(webhook.url), printable(_types(webhook)), _since(webhook.last_success_at, now), printable(webhook.description))
        table.add_row(Text(short_id(webhook.id)), _state(webhook), *(Text(cell) for cell in cells))
    return table


def webhook_card(webhook: Webhook, now: datetime) -> Table:
    """Returns everything about a webhook."""
    card = Table.grid(padding=(0, 2, 0, 0))
    card.add_column(style="dim", no_wrap=True)
    card.add_column(overflow="fold")
    for name, value in _rows(webhook, now):
        if value.plain:
            card.add_row(name, value)
    return card


def deliveries_table(deliveries: Sequence[WebhookDelivery], now: datetime) -> Table:
    """Returns a list of attempts."""
    table = _table("WHEN", "EVENT", "ATTEMPT", "ANSWER", "TOOK", "MESSAGE", first_style="dim")
    for each in deliveries:
        took = f"{each.duration / timedelta(milliseconds=1):.0f} ms"
        at = f"{shown(each.sent_at, now)}:{each.sent_at.astimezone():%S}"
        table.add_row(
            Text(at), Text(printable(each.type)), Text(str(each.attempt)), _answer(each), Text(took), Text(printable(each.message_id), "dim")
        )
    return table


def outcome(delivery: WebhookDelivery) -> Text:
    """Returns what came of a test, as one line."""
    took = f" in {delivery.duration / timedelta(milliseconds=1):.0f} ms"
    return Text.assemble(
        "The receiver has it: " if delivery.succeeded else "The test failed: ", _answer(delivery), took if delivery.succeeded else ""
    )


def event_line(event: Event, now: datetime, *, is_repeated: bool) -> Text:
    """Returns what a receiver has just got, as one line."""
    kind, data = str(event.body.get("type", "")), event.body.get("data")
    line = Text.assemble((f"{now:%H:%M:%S}", "dim"), "  ", (f"{printable(kind):16}", _VERBS.get(kind.partition(".")[2], "")))
    data = data if isinstance(data, dict) else {}
    subject = data.get("task") or data.get("project")
    if isinstance(subject, dict):
        name = str(subject.get("title") or subject.get("name") or "")
        line.append_text(Text.assemble((printable(short_id(str(subject.get("id", "")))), "magenta"), "  ", printable(name)))
    fields = [str(name) for name in data.get("changed_fields") or () if name not in _UNTOLD]
    if fields and kind.endswith((".updated", ".completed")):
        line.append(f"  {printable(', '.join(fields))}", "dim")
    return line.append("  (again)", "yellow") if is_repeated else line


def _rows(webhook: Webhook, now: datetime) -> Iterator[tuple[str, Text]]:
    yield "url", Text(printable(webhook.url), "bold")
    yield "description", Text(printable(webhook.description))
    yield "state", _state(webhook)
    yield "because", Text(printable(webhook.disabled_reason), "red")
    yield "events", Text(printable(_types(webhook)))
    yield "success", Text(_since(webhook.last_success_at, now))
    if (failure := webhook.last_failure) is not None:
        yield "failure", Text.assemble(shown(failure.at, now), "  ", (printable(failure.error or f"HTTP {failure.http_status}"), "red"))
    yield "created", Text(shown(webhook.created_at, now))
    yield "changed", Text(shown(webhook.updated_at, now))
    yield "etag", Text(webhook.etag)
    yield "id", Text(webhook.id)


def _state(webhook: Webhook) -> Text:
    return Text(printable(str(webhook.raw["state"]).lower()), _STATES[webhook.state])


def _types(webhook: Webhook) -> str:
    return " ".join(webhook.event_types) or _ALL_TYPES


def _since(at: datetime | None, now: datetime) -> str:
    return "never" if at is None else shown(at, now)


def _answer(delivery: WebhookDelivery) -> Text:
    if delivery.succeeded:
        return Text(f"HTTP {delivery.http_status}", "green")
    return Text(printable(delivery.error or f"HTTP {delivery.http_status}"), "red")


def _table(*names: str, first_style: str = "magenta") -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    first, *others = names
    table.add_column(first, style=first_style, no_wrap=True)
    for name in others:
        table.add_column(name, overflow="fold")
    return table
