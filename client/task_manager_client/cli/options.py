"""The options and arguments that several commands have."""

from datetime import datetime
from typing import Annotated, TypeAlias

import typer

from task_manager_client.cli import when
from task_manager_client.cli.failures import UsageError
from task_manager_client.cli.find import complete_deleted, complete_task

_ID_HELP = "The end of the task's id, at least 4 characters as `tm ls` shows it, or the whole id."

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Etag: TypeAlias = Annotated[str, typer.Option(help="Change the task only if this is its current etag.", metavar="ETAG")]
TaskId: TypeAlias = Annotated[str, typer.Argument(help=_ID_HELP, metavar="ID", autocompletion=complete_task)]
TaskIds: TypeAlias = Annotated[list[str], typer.Argument(help=_ID_HELP, metavar="ID...", autocompletion=complete_task)]
DeletedIds: TypeAlias = Annotated[list[str], typer.Argument(help=_ID_HELP, metavar="ID...", autocompletion=complete_deleted)]
Description: TypeAlias = Annotated[str | None, typer.Option("--description", "-m", help="More about the task.", metavar="TEXT")]
Priority: TypeAlias = Annotated[int | None, typer.Option("--priority", "-p", min=1, max=5, help="1 (lowest) to 5 (highest).")]
Due: TypeAlias = Annotated[str | None, typer.Option("--due", "-d", help=f"When it is due: {when.EXAMPLES}.", metavar="WHEN")]
Labels: TypeAlias = Annotated[list[str] | None, typer.Option("--label", "-l", help="A label. Can be given more than once.", metavar="LABEL")]


def due_time(text: str) -> datetime:
    """Returns the time that an option names, in the local time zone. Raises UsageError."""
    try:
        return when.instant(text, datetime.now().astimezone())
    except when.UnclearTime as error:
        raise UsageError(str(error)) from error
