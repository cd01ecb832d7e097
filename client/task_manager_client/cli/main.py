"""The command `tm`: its verbs, and what its process returns."""

import io
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from task_manager_client.cli import access, changes, failures, files, moves, projects, tokens, views, webhooks
from task_manager_client.cli.output import output
from task_manager_client.cli.place import Place
from task_manager_client.errors import TaskManagerError
from task_manager_client.wire import DEFAULT_URL, VERSION

_EPILOG = "TM_URL and TM_TOKEN override the profile. Exit status: 0 done, 1 failed, 2 usage, 3 not logged in, 4 not found, 5 conflict."

app = typer.Typer(
    help="Your tasks in task-manager, from the command line. Begin with: tm login",
    epilog=_EPILOG,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _version(value: bool) -> None:
    if value:
        output().print(f"tm {VERSION}", highlight=False)
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    profile: Annotated[str, typer.Option(help="Use another login; each profile has its own.", envvar="TM_PROFILE", metavar="NAME")] = "",
    version: Annotated[bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)] = False,  # noqa: ARG001 - the callback uses it
) -> None:
    """Takes the options before the verb."""
    place: Place = context.obj
    place.profile_name = profile or place.profile_name


for panel, commands in {
    "Tasks": (
        *(changes.add, views.ls, views.today, views.overdue, views.show, changes.edit, changes.done, changes.reopen, moves.mv),
        *(changes.rm, changes.undelete, views.watch),
    ),
    "Account": (access.login, access.logout, access.whoami),
}.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.command("export", rich_help_panel="Files")(files.export)
app.command("import", rich_help_panel="Files")(files.import_)
app.add_typer(projects.app, name="projects", rich_help_panel="Tasks")
app.add_typer(tokens.app, name="tokens", rich_help_panel="Account")
app.add_typer(webhooks.app, name="webhooks", rich_help_panel="Account")


def run(arguments: Sequence[str]) -> int:
    """Runs the command. Returns the exit status."""
    place = Place()
    try:
        app(list(arguments), prog_name="tm", obj=place)
    except TaskManagerError as error:
        failures.report(error, _url(place), as_json="--json" in arguments)
        return failures.exit_status(error)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else failures.FAILED
    return 0


def main() -> None:
    """The entry point of `tm`."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal whose encoding lacks a character shows another one instead.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))


def _url(place: Place) -> str:
    try:
        return place.url
    except TaskManagerError:
        return place.url_given or DEFAULT_URL
