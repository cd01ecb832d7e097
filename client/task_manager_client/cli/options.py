"""The options and arguments that several commands have."""

from datetime import date, datetime
from typing import Annotated, TypeAlias

import typer

from task_manager_client.cli import every, remind, when
from task_manager_client.cli.failures import UsageError
from task_manager_client.cli.find import complete_deleted, complete_project, complete_task, complete_webhook

_ID_HELP = "The end of the task's id, at least 4 characters as `tm ls` shows it, or the whole id."

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Etag: TypeAlias = Annotated[str, typer.Option(help="Make the change only if this is the current etag.", metavar="ETAG")]
TaskId: TypeAlias = Annotated[str, typer.Argument(help=_ID_HELP, metavar="ID", autocompletion=complete_task)]
TaskIds: TypeAlias = Annotated[list[str], typer.Argument(help=_ID_HELP, metavar="ID...", autocompletion=complete_task)]
DeletedIds: TypeAlias = Annotated[list[str], typer.Argument(help=_ID_HELP, metavar="ID...", autocompletion=complete_deleted)]
Description: TypeAlias = Annotated[str | None, typer.Option("--description", "-m", help="More about the task.", metavar="TEXT")]
Priority: TypeAlias = Annotated[int | None, typer.Option("--priority", "-p", min=1, max=5, help="1 (lowest) to 5 (highest).")]
Due: TypeAlias = Annotated[str | None, typer.Option("--due", "-d", help=f"When it is due: {when.EXAMPLES}.", metavar="WHEN")]
Labels: TypeAlias = Annotated[list[str] | None, typer.Option("--label", "-l", help="A label. Can be given more than once.", metavar="LABEL")]


AfterDone: TypeAlias = Annotated[bool, typer.Option("--after-done", help="With --every: count from the day on which it is done.")]
Project: TypeAlias = Annotated[
    str | None,
    typer.Option("--project", "-P", help="A project: its name or the end of its id; or inbox.", metavar="PROJECT", autocompletion=complete_project),
]
ProjectId: TypeAlias = Annotated[
    str, typer.Argument(help="The project's name, the end of its id, or the whole id.", metavar="PROJECT", autocompletion=complete_project)
]
WebhookId: TypeAlias = Annotated[
    str,
    typer.Argument(
        help="The end of the webhook's id, at least 4 characters as `tm webhooks list` shows it, or the whole id.",
        metavar="ID",
        autocompletion=complete_webhook,
    ),
]
EVERY_HELP = f"How it repeats: {every.EXAMPLES}"
REMIND_HELP = f"When to remind you: {remind.EXAMPLES}"


def due(text: str) -> date:
    """Returns the day or the time, in the local time zone, that an option names. Raises UsageError."""
    try:
        return when.due(text, now())
    except when.UnclearTime as error:
        raise UsageError(str(error)) from error


def quoted(etag: str) -> str:
    """Returns an etag in double quotes, which shells tend to remove; "" for none."""
    return f'"{etag}"' if etag and not etag.startswith('"') else etag


def now() -> datetime:
    """Returns the time, in the local time zone."""
    return datetime.now().astimezone()
