"""The commands that write tasks to files and read them from files: export, import."""

import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from task_manager_client.cli import every, when
from task_manager_client.cli.failures import UsageError
from task_manager_client.cli.options import AsJson
from task_manager_client.cli.output import errors, plain, print_json, say
from task_manager_client.cli.place import Place
from task_manager_client.cli.zone import local_zone
from task_manager_client.errors import IdempotencyKeyReused, TaskManagerError
from task_manager_client.transfer import exporter, formats, importer
from task_manager_client.transfer.records import Source
from task_manager_client.transfer.report import Report, UnreadableFile

_PIPE: Final = "-"
_SHOWN_NOTES: Final = 20

_Target = Annotated[Path, typer.Argument(help="The file to write; `-` is the standard output.", metavar="[FILE]")]
_Input = Annotated[Path, typer.Argument(help="The file to read; `-` is the standard input.", metavar="FILE")]
_Format = Annotated[
    str, typer.Option("--format", "-f", help=f"{', '.join(formats.WRITERS)}; by default what the file's name says.", metavar="FORMAT")
]
_From = Annotated[str, typer.Option("--from", "-f", help=f"{', '.join(formats.READERS)}; by default what the file's name says.", metavar="FORMAT")]
_Filter = Annotated[str, typer.Option(help="Only these tasks, for example: status != COMPLETED.", metavar="FILTER")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be imported, and what could not be kept.")]
_Again = Annotated[str, typer.Option(help="Import a file that was imported already once more. Give any word; another one each time.", metavar="WORD")]


def export(
    context: typer.Context,
    file: _Target = Path(_PIPE),
    format: _Format = "",  # noqa: A002 - the name of the option
    filter: _Filter = "",  # noqa: A002 - the name of the option
    as_json: AsJson = False,
) -> None:
    """Write all tasks to a file: as NDJSON, which keeps everything, as CSV for spreadsheets, or as iCalendar.

    For example: tm export tasks.ndjson
    """
    place: Place = context.obj
    name = _known(format or formats.of_name(file.name) or formats.NDJSON, formats.WRITERS, "--format")
    is_piped = str(file) == _PIPE
    if is_piped and as_json:
        raise UsageError("--json prints the report, where the tasks would be: name a file for the tasks")
    report = Report()
    with place.client() as client, _progress("Exporting") as on_progress, _written(file) as out:
        done = exporter.export(client, name, out, report, on_progress, filter_text=filter)
    if as_json:
        print_json({**asdict(done), **_shown(report)})
    else:
        _tell(f"Exported {_counted(done.tasks, 'task')} and {_counted(done.projects, 'project')}.", report, to_errors=is_piped)


def import_(context: typer.Context, file: _Input, from_: _From = "", dry_run: _DryRun = False, again: _Again = "", as_json: AsJson = False) -> None:
    """Create the tasks of a file: NDJSON, CSV, iCalendar, Todoist's CSV, Vikunja's export or Taskwarrior's JSON.

    If an import breaks, the same command continues it, for 24 hours.

    For example: tm import Home.csv --from todoist
    """
    place: Place = context.obj
    name = _known(from_ or formats.of_name(file.name), formats.READERS, "--from")
    report = Report()
    source = _source(file, report)
    planned = importer.plan(formats.READERS[name](source), report)
    if dry_run:
        counts = {"projects": len(planned.projects), "tasks": planned.tasks, "earlier": 0}
        text = f"Would import {_counted(planned.tasks, 'task')} and {_counted(len(planned.projects), 'project')}."
    else:
        key = importer.key_of(source.data, name, source.name, source.zone, again)
        with place.client() as client, _progress("Importing") as on_progress, _advised():
            done = importer.run(client, planned, key, report, on_progress)
        counts = asdict(done)
        text = f"Imported {_counted(done.tasks, 'task')} and {_counted(done.projects, 'project')}."
        if done.earlier:
            text += f" {done.earlier} of the tasks are from an earlier import of this file; to import it once more, add --again WORD."
    if as_json:
        print_json({**counts, **_shown(report)})
    else:
        _tell(text, report)


def _known(name: str, known: Any, option: str) -> str:
    if name not in known:
        raise UsageError(f"give the format of the file with {option}: {', '.join(known)}")
    return name


def _source(file: Path, report: Report) -> Source:
    try:
        if str(file) == _PIPE:
            data, name, written = sys.stdin.buffer.read(), "", datetime.now(UTC)
        else:
            data, name, written = file.read_bytes(), file.name, datetime.fromtimestamp(file.stat().st_mtime, UTC)
    except OSError as error:
        raise UnreadableFile(f"{file} cannot be read: {error.strerror}") from error
    return Source(data, name, local_zone(), written.astimezone(), when.due, every.rule, report)


@contextmanager
def _written(file: Path) -> Iterator[BinaryIO]:
    """Opens the file to write. It gets its name when it is complete, so that a broken export leaves the one before."""
    if str(file) == _PIPE:
        with suppress(io.UnsupportedOperation):
            sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as out:
            yield out
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def _progress(text: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a progress bar on a terminal."""
    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors(), disable=not errors().is_terminal, transient=True) as progress:
        bar = progress.add_task(text, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


@contextmanager
def _advised() -> Iterator[None]:
    """Says how an import that breaks continues."""
    try:
        yield
    except IdempotencyKeyReused as error:
        error.message = (
            "this file was imported within the last 24 hours, by a tm of another version or into other projects: "
            "to import it once more, add --again WORD"
        )
        raise
    except TaskManagerError as error:
        error.message = f"{error.message.rstrip('.')}. The import is not complete: the same command continues it."
        raise
    except KeyboardInterrupt:
        errors().print("The import is not complete: the same command continues it.", highlight=False)
        raise


def _shown(report: Report) -> dict[str, Any]:
    return {"notes": [asdict(note) for note in report.notes], "counts": dict(report.counts)}


def _tell(text: str, report: Report, *, to_errors: bool = False) -> None:
    out = (lambda markup: errors().print(markup, highlight=False, soft_wrap=True)) if to_errors else say
    out(text)
    if not report.notes and not report.counts:
        return
    out("What is not as it was:")
    for note in report.notes[:_SHOWN_NOTES]:
        out(f"  {plain(note.place)}  {plain(note.title)}  [dim]{plain(note.what)}[/]")
    if len(report.notes) > _SHOWN_NOTES:
        out(f"  and {len(report.notes) - _SHOWN_NOTES} more, which --json shows")
    for what, number in report.counts.items():
        out(f"  {number} times: {plain(what)}")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
