"""The calls of both clients on the running system, and the errors as classes."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import pytest

import task_manager_client as tm
from task_manager_client import AsyncClient, Client, MemoryStore, Status
from tests.support.accounts import PASSWORD


def test_a_task_from_creation_to_undeletion(client: Client) -> None:
    due = datetime(2027, 5, 1, 12, tzinfo=UTC)
    made = client.create_task("Buy milk", priority=4, labels=["home"], due_date=due)
    assert (made.title, made.priority, made.labels, made.due_date, made.status) == ("Buy milk", 4, ("home",), due, Status.PENDING)
    changed = client.update_task(made.id, etag=made.etag, due_date=None, labels=[], status=Status.COMPLETED)
    assert (changed.due_date, changed.labels, changed.status, changed.title) == (None, (), Status.COMPLETED, "Buy milk")
    assert changed.completed_at is not None
    replaced = client.replace_task(made.id, "Buy bread")
    assert (replaced.title, replaced.priority, replaced.status) == ("Buy bread", 3, Status.PENDING)
    client.delete_task(made.id, etag=replaced.etag)
    with pytest.raises(tm.TaskNotFound):
        client.get_task(made.id)
    assert client.undelete_task(made.id).title == "Buy bread"
    with pytest.raises(tm.TaskNotDeleted):
        client.undelete_task(made.id)


def test_a_naive_due_date_is_in_the_local_zone(client: Client) -> None:
    naive = datetime.now().replace(microsecond=0) + timedelta(days=1)  # noqa: DTZ005 - the case
    assert client.create_task("x", due_date=naive).due_date == naive.astimezone()


async def test_an_iterator_reads_every_page(async_client: AsyncClient) -> None:
    made = await async_client.batch_create_tasks([{"title": f"task {number}", "priority": 1 + number % 5} for number in range(230)])
    assert {task.id async for task in async_client.iter_tasks()} == {task.id for task in made}
    assert [task.priority async for task in async_client.iter_tasks(filter="priority >= 4", order_by="priority desc")] == [5] * 46 + [4] * 46
    page = await async_client.list_tasks(page_size=2, include_total_size=True)
    assert (len(page.tasks), page.total_size, bool(page.next_page_token)) == (2, 230, True)


async def test_batches(async_client: AsyncClient) -> None:
    first, second = await async_client.batch_create_tasks([{"title": "one"}, {"title": "two", "labels": ["x"]}])
    due = datetime(2027, 5, 1, tzinfo=UTC)
    updates: list[tm.TaskUpdate] = [{"id": first.id, "due_date": due, "etag": first.etag}, {"id": second.id, "title": "2", "labels": []}]
    changed = await async_client.batch_update_tasks(updates)
    assert [(task.title, task.due_date, task.labels) for task in changed] == [("one", due, ()), ("2", None, ())]
    with pytest.raises(tm.EtagMismatch) as caught:
        await async_client.batch_update_tasks([{"id": first.id, "title": "late", "etag": first.etag}])
    assert caught.value.metadata == {"etag": changed[0].etag, "index": "0"}
    assert await async_client.batch_get_tasks([second.id, first.id]) == (changed[1], changed[0])
    await async_client.batch_delete_tasks([first.id, second.id])
    with pytest.raises(tm.TaskNotFound):
        await async_client.batch_get_tasks([first.id])


async def test_the_same_key_makes_one_task(async_client: AsyncClient) -> None:
    made = await asyncio.gather(*(async_client.create_task("once", idempotency_key="k") for _ in range(4)))
    assert len({task.id for task in made}) == 1
    with pytest.raises(tm.IdempotencyKeyReused):
        await async_client.create_task("another", idempotency_key="k")


def test_errors_are_classes(client: Client, url: str, email: str) -> None:
    with pytest.raises(tm.InvalidField) as caught:
        client.create_task("")
    assert [field for field, _ in caught.value.violations] == ["task.title"]
    assert (caught.value.reason, caught.value.status) == ("INVALID_FIELD", 400)
    with pytest.raises(tm.InvalidPageToken):
        client.list_tasks(page_token="x")
    with pytest.raises(tm.InvalidArgument):
        client.get_task("../tasks")
    with pytest.raises(tm.EmailTaken):
        client.register(email.upper(), PASSWORD, "Ada")
    with pytest.raises(tm.WrongPassword):
        client.change_password("not this one", "another one, longer")
    with pytest.raises(tm.SessionNotFound):
        client.revoke_session(str(uuid4()))
    with Client(url) as stranger:
        with pytest.raises(tm.InvalidCredentials):
            stranger.login(email, "not this one")
        with pytest.raises(tm.NotLoggedIn):
            stranger.get_me()
    with Client(url, access_token="forged") as forger, pytest.raises(tm.NotLoggedIn):
        forger.get_me()


WITH_ID: list[Callable[[Client, str], object]] = [
    lambda client, text: client.get_task(text),
    lambda client, text: client.update_task(text, title="x"),
    lambda client, text: client.replace_task(text, "x"),
    lambda client, text: client.delete_task(text),
    lambda client, text: client.undelete_task(text),
    lambda client, text: client.move_task(text, parent_id=""),
    lambda client, text: client.list_task_changes(text),
    lambda client, text: client.revoke_session(text),
    lambda client, text: client.delete_api_token(text),
    lambda client, text: client.get_project(text),
    lambda client, text: client.update_project(text, name="x"),
    lambda client, text: client.delete_project(text, force=True),
    lambda client, text: client.archive_project(text),
]
NAMES = ["get", "update", "replace", "delete", "undelete", "move", "history", "revoke_session"]
PROJECT_NAMES = ["get_project", "update_project", "delete_project", "archive_project"]


@pytest.mark.parametrize("call", WITH_ID, ids=[*NAMES, "delete_api_token", *PROJECT_NAMES])
def test_an_id_is_one_segment_of_the_path(call: Callable[[Client, str], object]) -> None:
    paths = []

    def keep(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path)
        return httpx.Response(404)

    with Client("http://x", access_token="t", transport=httpx.MockTransport(keep)) as client:
        for text in ("", ".", ".."):
            with pytest.raises(tm.InvalidArgument, match="is not an id"):
                call(client, text)
        assert not paths
        with pytest.raises(tm.NotFound):
            call(client, "../a b?c#d%2F:e")
    assert b"/..%2Fa%20b%3Fc%23d%252F%3Ae" in paths[0]


def test_an_account_from_sessions_to_deletion(client: Client, url: str, email: str, tokens: MemoryStore) -> None:
    assert client.update_me(name="Countess").name == client.get_me().name == "Countess"
    with Client(url) as other:
        other.login(email, PASSWORD)
        (mine,) = [session for session in client.list_sessions() if session.current]
        (theirs,) = [session for session in client.list_sessions() if session.id != mine.id]
        assert theirs.user_agent.startswith("task-manager-client/")
        client.revoke_session(theirs.id)
        # Its access token may still be valid for two seconds, its refresh token is not.
        assert [session.id for session in client.list_sessions()] == [mine.id]
    client.change_password(PASSWORD, "another one, longer")
    client.delete_me("another one, longer")
    assert tokens.load() is None
    with pytest.raises(tm.NotLoggedIn):
        client.get_me()


async def test_a_logout_ends_the_session(async_client: AsyncClient, tokens: MemoryStore, url: str) -> None:
    before = tokens.load()
    assert before is not None
    await async_client.logout()
    assert tokens.load() is None
    await async_client.logout()
    old = MemoryStore(tm.Tokens(before.access_token, before.refresh_token, fresh_until=0))
    async with AsyncClient(url, tokens=old) as late:
        with pytest.raises(tm.NotLoggedIn) as caught:
            await late.get_me()
    assert caught.value.reason == "REFRESH_TOKEN_INVALID"
    assert old.load() is None


def test_an_answer_of_another_server_is_no_success() -> None:
    page = httpx.MockTransport(lambda _: httpx.Response(200, text="<html>"))
    with Client("http://x", access_token="t", transport=page) as client, pytest.raises(tm.UnexpectedAnswer):
        client.get_me()
    proxy = httpx.MockTransport(lambda _: httpx.Response(502, text="<html>", headers={"retry-after": "60"}))
    with Client("http://x", access_token="t", transport=proxy) as client, pytest.raises(tm.Unavailable) as caught:
        client.get_me()
    assert caught.value.retry_after == 60
