"""The calls of both clients for projects, subtasks, due dates, recurrence, reminders and history, on the running system."""

import asyncio
import itertools
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import httpx
import pytest

import task_manager_client as tm
from task_manager_client import Anchor, AsyncClient, ChangeKind, Client, Recurrence, Reminder, Status

WITHIN_SECONDS = 30


def test_a_project_from_creation_to_undeletion(client: Client) -> None:
    made = client.create_project("Home", color="#3366ff")
    assert (made.name, made.description, made.color, made.archived_at) == ("Home", "", "#3366ff", None)
    changed = client.update_project(made.id, etag=made.etag, description="Rent and repairs")
    assert (changed.name, changed.description) == ("Home", "Rent and repairs")
    with pytest.raises(tm.EtagMismatch):
        client.update_project(made.id, etag=made.etag, name="late")
    task = client.create_task("Pay rent", project_id=made.id)
    assert task.project_id == made.id
    with pytest.raises(tm.ProjectNotEmpty):
        client.delete_project(made.id)
    client.delete_project(made.id, force=True)
    with pytest.raises(tm.ProjectNotFound):
        client.get_project(made.id)
    with pytest.raises(tm.TaskNotFound):
        client.get_task(task.id)
    assert client.undelete_project(made.id).name == "Home"
    assert client.get_task(task.id).title == "Pay rent"
    with pytest.raises(tm.ProjectNotDeleted):
        client.undelete_project(made.id)


async def test_projects_have_an_order(async_client: AsyncClient) -> None:
    first, second, third = [await async_client.create_project(name) for name in ("a", "b", "c")]
    await async_client.move_project(third.id, before_id=first.id)
    await async_client.move_project(first.id, after_id=second.id)
    assert [project.name async for project in async_client.iter_projects()] == ["c", "b", "a"]
    await async_client.move_project(third.id)
    page = await async_client.list_projects(page_size=2)
    assert ([project.name for project in page.projects], bool(page.next_page_token)) == (["b", "a"], True)


def test_an_archived_project_takes_no_task(client: Client) -> None:
    project = client.create_project("Old")
    assert client.archive_project(project.id).archived_at is not None
    with pytest.raises(tm.ProjectArchived):
        client.create_task("x", project_id=project.id)
    assert list(client.iter_projects()) == []
    assert [each.id for each in client.iter_projects(show_archived=True)] == [project.id]
    assert client.unarchive_project(project.id).archived_at is None
    assert client.create_task("x", project_id=project.id).project_id == project.id


def test_subtasks_and_their_order(client: Client) -> None:
    top = client.create_task("top")
    first, second = client.batch_create_tasks([{"title": title, "parent_id": top.id} for title in ("first", "second")])
    client.move_task(second.id, before_id=first.id)
    assert [task.title for task in client.iter_tasks(parent_id=top.id, order_by="position")] == ["second", "first"]
    assert [task.title for task in client.iter_tasks(parent_id="", project_id="")] == ["top"]
    assert client.move_task(first.id, parent_id="").parent_id == ""
    with pytest.raises(tm.ParentCycle):
        client.move_task(top.id, parent_id=second.id)
    with pytest.raises(tm.SiblingNotFound):
        client.move_task(top.id, after_id=second.id)
    with pytest.raises(tm.ParentNotFound):
        client.create_task("x", parent_id=str(uuid4()))


def test_a_day_a_rule_and_reminders(client: Client) -> None:
    rule = Recurrence("FREQ=MONTHLY", Anchor.COMPLETION)
    reminders = [Reminder(before_due=timedelta(days=1)), Reminder(at=datetime(2027, 4, 30, 9, tzinfo=UTC))]
    made = client.create_task("Pay rent", due_on=date(2027, 5, 1), time_zone="Europe/Berlin", recurrence=rule, reminders=reminders)
    assert (made.due_on, made.due_date, made.time_zone) == (date(2027, 5, 1), None, "Europe/Berlin")
    assert (made.due_at, made.recurrence, made.reminders) == (datetime(2027, 5, 1, 22, tzinfo=UTC), rule, tuple(reminders))
    (changed,) = client.batch_update_tasks([{"id": made.id, "due_date": datetime(2027, 5, 1, 7, tzinfo=UTC), "recurrence": Recurrence("FREQ=DAILY")}])
    assert (changed.due_on, changed.due_date, changed.recurrence) == (None, datetime(2027, 5, 1, 7, tzinfo=UTC), Recurrence("FREQ=DAILY"))
    done = client.update_task(made.id, status=Status.COMPLETED)
    following = client.get_task(done.next_id)
    assert (following.previous_id, following.due_date) == (made.id, datetime(2027, 5, 2, 7, tzinfo=UTC))
    cleared = client.update_task(following.id, due_date=None, due_on=None, recurrence=None, reminders=[])
    assert (cleared.due_date, cleared.due_at, cleared.recurrence, cleared.reminders) == (None, None, None, ())


def test_the_history_of_a_task(client: Client) -> None:
    made = client.create_task("first")
    client.update_task(made.id, title="second", priority=5)
    changes = list(client.iter_task_changes(made.id))
    assert [(change.kind, change.task.title) for change in changes] == [(ChangeKind.UPDATED, "second"), (ChangeKind.CREATED, "first")]
    assert {"title", "priority"} <= set(changes[0].changed_fields)
    (session,) = client.list_sessions()
    assert (changes[0].actor.session_id, changes[0].actor.api_token_id) == (session.id, "")
    page = client.list_task_changes(made.id, page_size=1)
    assert (page.changes, bool(page.next_page_token)) == ((changes[0],), True)


def test_a_watch_can_show_projects(client: Client) -> None:
    start = client.list_tasks().resume_token
    project = client.create_project("Home")
    client.create_task("x")
    with_projects = list(itertools.islice(client.watch(start, show_projects=True), 2))
    assert [(change.kind, change.project and change.project.id) for change in with_projects] == [
        (ChangeKind.CREATED, project.id),
        (ChangeKind.CREATED, None),
    ]
    (first,) = itertools.islice(client.watch(start), 1)
    assert first.task is not None


def test_every_write_has_a_key_and_an_empty_id_arrives() -> None:
    requests = []

    def keep(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(404)

    with Client("http://x", access_token="t", transport=httpx.MockTransport(keep)) as client:
        for write in (
            lambda: client.create_project("x"),
            lambda: client.update_project("p", name="x"),
            lambda: client.delete_project("p", force=True, etag='"1"'),
            lambda: client.undelete_project("p"),
            lambda: client.archive_project("p"),
            lambda: client.unarchive_project("p"),
            lambda: client.move_project("p", after_id="q"),
            lambda: client.move_task("t", project_id="", parent_id=None),
        ):
            with pytest.raises(tm.NotFound):
                write()
        with pytest.raises(tm.NotFound):
            client.list_tasks(project_id="")
    assert len({request.headers["idempotency-key"] for request in requests[:-1]}) == 8
    assert (requests[2].headers["if-match"], requests[2].url.query) == ('"1"', b"force=true")
    assert (requests[6].content, requests[7].content) == (b'{"after_id":"q"}', b'{"project_id":""}')
    assert requests[8].url.query == b"project_id="


async def test_a_reminder_is_a_message_of_a_watch(async_client: AsyncClient) -> None:
    start = (await async_client.list_tasks()).resume_token
    made = await async_client.create_task("Call Grace", reminders=[Reminder(at=datetime.now(UTC) + timedelta(seconds=1))])
    async with asyncio.timeout(WITHIN_SECONDS):
        async for change in async_client.watch(start):
            if change.kind is ChangeKind.REMINDER:
                break
    assert change.task == made
