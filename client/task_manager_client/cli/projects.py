"""The commands of `tm projects`: the list, add, edit, rm, undelete, archive, unarchive, mv."""

from collections.abc import Callable
from typing import Annotated, Final, TypeVar, cast

import typer

from task_manager_client.cli.failures import UsageError
from task_manager_client.cli.find import complete_project, find_project
from task_manager_client.cli.options import AsJson, Etag, ProjectId, quoted
from task_manager_client.cli.output import errors, output, plain, print_json, project_table, say, short_id
from task_manager_client.cli.place import Place
from task_manager_client.client import Client
from task_manager_client.errors import DeadlineExceeded
from task_manager_client.project_values import Project, ProjectDetails, ProjectFields

Result = TypeVar("Result")

# Each call works for up to 15 s on a project with many tasks, and the next one continues.
_CALLS: Final = 40

_Name = Annotated[list[str], typer.Argument(help="The name; no quotes needed.", metavar="NAME...")]
_NewName = Annotated[str | None, typer.Option("--name", "-n", help="The new name.", metavar="TEXT")]
_Description = Annotated[str | None, typer.Option("--description", "-m", help="More about the project.", metavar="TEXT")]
_Color = Annotated[str | None, typer.Option("--color", "-c", help="The color, for example #3366ff; or none.", metavar="COLOR")]
_Archived = Annotated[bool, typer.Option("--all", "-a", help="Also the archived projects.")]
_Deleted = Annotated[bool, typer.Option("--deleted", help="Only the projects in the bin.")]
_Force = Annotated[bool, typer.Option("--force", "-f", help="Delete its tasks with it.")]
_Before = Annotated[
    str | None, typer.Option("--before", "-b", help="Place it before this project.", metavar="PROJECT", autocompletion=complete_project)
]
_After = Annotated[str | None, typer.Option("--after", "-a", help="Place it after this project.", metavar="PROJECT", autocompletion=complete_project)]

app = typer.Typer(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})


@app.callback()
def ls(context: typer.Context, archived: _Archived = False, deleted: _Deleted = False, as_json: AsJson = False) -> None:
    """List projects, in their order. Its commands change them.

    For example: tm projects add Home, and then: tm add Pay rent --project Home
    """
    if context.invoked_subcommand is not None:
        return
    place: Place = context.obj
    with place.client() as client:
        projects = list(client.iter_projects(show_archived=archived or deleted, show_deleted=deleted))
    shown = [project for project in projects if not deleted or project.deleted_at is not None]
    if as_json:
        print_json([project.raw for project in shown])
    elif shown:
        output().print(project_table(shown))
    elif output().is_terminal:
        errors().print("[dim]No projects. Add one with: tm projects add NAME[/]", highlight=False)


@app.command()
def add(context: typer.Context, name: _Name, description: _Description = None, color: _Color = None, as_json: AsJson = False) -> None:
    """Add a project."""
    place: Place = context.obj
    with place.client() as client:
        project = client.create_project(" ".join(name), **_details(description, color))
    _tell("Added", project, as_json=as_json)


@app.command()
def edit(
    context: typer.Context,
    project: ProjectId,
    name: _NewName = None,
    description: _Description = None,
    color: _Color = None,
    etag: Etag = "",
    as_json: AsJson = False,
) -> None:
    """Change a project: only what the options name."""
    fields = cast("ProjectFields", _details(description, color))
    if name is not None:
        fields["name"] = name
    if not fields:
        raise UsageError("there is nothing to change: give an option, for example --name TEXT")
    _change(context, project, "Changed", lambda client, id_: client.update_project(id_, etag=quoted(etag), **fields), as_json=as_json)


@app.command()
def rm(context: typer.Context, project: ProjectId, force: _Force = False, etag: Etag = "", as_json: AsJson = False) -> None:
    """Move a project to the bin, with --force also its tasks. For 30 days, `tm projects undelete` brings them back."""
    place: Place = context.obj
    with place.client() as client:
        project_id = find_project(client, project)
        _continued(lambda: client.delete_project(project_id, force=force, etag=quoted(etag)))
    if as_json:
        print_json({"id": project_id})
    else:
        end = short_id(project_id)
        say(f"Deleted [magenta]{end}[/]  [dim](back with: tm projects undelete {end})[/]")


@app.command()
def undelete(context: typer.Context, project: ProjectId, etag: Etag = "", as_json: AsJson = False) -> None:
    """Bring a project back from the bin, with the tasks that went there with it. `tm projects --deleted` shows the bin."""
    place: Place = context.obj
    with place.client() as client:
        project_id = find_project(client, project, deleted=True)
        restored = _continued(lambda: client.undelete_project(project_id, etag=quoted(etag)))
    _tell("Restored", restored, as_json=as_json)


@app.command()
def archive(context: typer.Context, project: ProjectId, etag: Etag = "", as_json: AsJson = False) -> None:
    """Archive a project: no task can be added to it or moved into it."""
    _change(context, project, "Archived", lambda client, id_: client.archive_project(id_, etag=quoted(etag)), as_json=as_json)


@app.command()
def unarchive(context: typer.Context, project: ProjectId, etag: Etag = "", as_json: AsJson = False) -> None:
    """Use an archived project again."""
    _change(context, project, "In use again:", lambda client, id_: client.unarchive_project(id_, etag=quoted(etag)), as_json=as_json)


@app.command()
def mv(context: typer.Context, project: ProjectId, before: _Before = None, after: _After = None, etag: Etag = "", as_json: AsJson = False) -> None:
    """Move a project to another place among the projects. Without --before and --after it comes last."""
    if before is not None and after is not None:
        raise UsageError("give --before or --after, not both")

    def move(client: Client, project_id: str) -> Project:
        before_id = "" if before is None else find_project(client, before)
        after_id = "" if after is None else find_project(client, after)
        return client.move_project(project_id, before_id=before_id, after_id=after_id, etag=quoted(etag))

    _change(context, project, "Moved", move, as_json=as_json)


def _details(description: str | None, color: str | None) -> ProjectDetails:
    details: ProjectDetails = {}
    if description is not None:
        details["description"] = description
    if color is not None:
        details["color"] = "" if color.lower() == "none" else color
    return details


def _change(context: typer.Context, project: str, verb: str, change: Callable[[Client, str], Project], *, as_json: bool) -> None:
    place: Place = context.obj
    with place.client() as client:
        changed = change(client, find_project(client, project))
    _tell(verb, changed, as_json=as_json)


def _continued(call: Callable[[], Result]) -> Result:
    """Makes a call, and again each time that its time was too short for all tasks of the project."""
    for _ in range(_CALLS - 1):
        try:
            return call()
        except DeadlineExceeded:
            continue
    return call()


def _tell(verb: str, project: Project, *, as_json: bool) -> None:
    if as_json:
        print_json(project.raw)
    else:
        say(f"{verb} [magenta]{short_id(project.id)}[/] {plain(project.name)}")
