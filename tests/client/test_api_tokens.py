"""API tokens with the clients and `tm tokens`, and calls with one, on the running system."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from task_manager_client import Actor, ApiTokenNotFound, AsyncClient, Client, InvalidField, NotLoggedIn, ScopeMissing, SessionRequired
from tests.client.conftest import Tm
from tests.support.waiting import eventually

READ = ["tasks:read"]


def test_a_token_does_what_its_scopes_say_until_it_is_deleted(client: Client, url: str) -> None:
    task = client.create_task("for a script")
    created = client.create_api_token("script", READ)
    assert created.token not in repr(created)
    assert created.token.startswith(created.api_token.hint)
    with Client(url, access_token=created.token) as script:
        assert script.get_task(task.id) == task
        with pytest.raises(ScopeMissing) as missing:
            script.create_task("another")
        assert missing.value.metadata == {"scope": "tasks:write"}
        for managing in (script.list_api_tokens, script.list_sessions):
            with pytest.raises(SessionRequired):
                managing()
        (token,) = client.list_api_tokens()
        assert (token.name, token.scopes, token.last_used_at is None) == ("script", ("tasks:read",), False)
        client.delete_api_token(token.id)
        assert client.list_api_tokens() == ()


def test_the_history_of_a_task_says_which_token_changed_it(client: Client, url: str) -> None:
    project = client.create_project("shared")
    task = client.create_task("shared", project_id=project.id)
    first, second = (client.create_api_token(name, ["tasks:write"]) for name in ("first", "🦊" * 100))
    with Client(url, access_token=first.token) as script:
        script.update_task(task.id, title="changed")
    with Client(url, access_token=second.token) as script:
        script.delete_project(project.id, force=True)
    client.delete_api_token(first.api_token.id)
    (session,) = client.list_sessions()
    actors = [change.actor for change in client.iter_task_changes(task.id)]
    assert actors == [Actor("", second.api_token.id, "🦊" * 100), Actor("", first.api_token.id, "first"), Actor(session.id, "", "")]


async def test_a_deleted_token_is_refused_and_there_is_nothing_to_refresh(async_client: AsyncClient, url: str) -> None:
    created = await async_client.create_api_token("script", READ)
    async with AsyncClient(url, access_token=created.token) as script:
        await script.list_tasks()
        await async_client.delete_api_token(created.api_token.id)

        async def refused() -> None:
            with pytest.raises(NotLoggedIn):
                await script.list_tasks()

        await eventually(refused, within=5)
    with pytest.raises(ApiTokenNotFound):
        await async_client.delete_api_token(created.api_token.id)


def test_the_expiry_can_be_chosen_within_bounds(client: Client) -> None:
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=7)
    assert client.create_api_token("week", READ, expires_at=at).api_token.expires_at == at
    with pytest.raises(InvalidField) as wrong:
        client.create_api_token("far", [], expires_at=at + timedelta(days=400))
    assert {field for field, _ in wrong.value.violations} == {"api_token.expires_at", "api_token.scopes"}


def test_an_exchanged_token_is_one_of_the_api_token(client: Client, url: str) -> None:
    created = client.create_api_token("service", READ)
    exchanged = client.exchange_api_token(created.token)
    assert (exchanged.token_type, 0 < exchanged.expires_in <= 900) == ("Bearer", True)
    with Client(url, access_token=exchanged.access_token) as direct:
        direct.list_tasks()
        with pytest.raises(SessionRequired):
            direct.list_sessions()


def test_the_command_creates_lists_and_deletes(logged_in: Tm) -> None:
    status, out, err = logged_in("tokens", "create", "Backup script", "--scope", "tasks:read", "--scope", "account:read", "--expires", "in 7 days")
    assert status == 0
    token = out.strip()
    assert token.startswith("tm_")
    assert token not in err
    (listed,) = json.loads(logged_in("tokens", "list", "--json")[1])
    assert (listed["name"], listed["scopes"], listed["hint"]) == ("Backup script", ["tasks:read", "account:read"], token[:7])
    assert token not in logged_in("tokens", "list")[1]
    assert listed["id"] in logged_in("tokens", "list")[1]
    assert logged_in("tokens", "delete", listed["id"]) == (0, "Deleted.\n", "")
    assert logged_in("tokens", "delete", listed["id"])[0] == 4
    assert logged_in("tokens", "list") == (0, "", "")


def test_the_command_works_with_a_token_alone(logged_in: Tm, monkeypatch: pytest.MonkeyPatch) -> None:
    logged_in("add", "Water the plants")
    created = json.loads(logged_in("tokens", "create", "agent", "-s", "tasks:read", "--json")[1])
    monkeypatch.setenv("TM_TOKEN", created["token"])
    assert [task["title"] for task in json.loads(logged_in("ls", "--json")[1])] == ["Water the plants"]
    status, _, err = logged_in("add", "Another")
    assert status == 1
    assert "tasks:write" in err
    assert logged_in("tokens", "list")[0] == 1


def test_a_token_without_scopes_is_a_mistake_of_usage(logged_in: Tm) -> None:
    assert logged_in("tokens", "create", "none")[0] == 2
