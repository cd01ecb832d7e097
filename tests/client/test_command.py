"""The command tm on the running system: its verbs, exit statuses and outputs."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from task_manager_client import Client, Tokens
from task_manager_client.profiles import Login, Profile
from tests.client.conftest import Tm, printed_json
from tests.support.accounts import PASSWORD


def test_from_login_to_logout(tm: Tm, email: str, url: str, config: Path) -> None:
    status, out, _ = tm("login", "--email", email, "--password-stdin", "--register", "--name", "Ada", stdin=f"{PASSWORD}\n")
    assert (status, out) == (0, f"Logged in to {url} as Ada ({email}).\n")
    assert tm("whoami") == (0, f"Ada ({email}) at {url}\n", "")
    assert printed_json(tm("whoami", "--json"))["user"]["email"] == email
    assert tm("--profile", "work", "whoami")[0] == 3
    assert tm("logout") == (0, "Logged out.\n", "")
    assert tm("whoami") == tm("logout") == (3, "", f"tm: you are not logged in\nLog in to {url} with: tm login\n")
    status, out, err = tm("login", "--email", email, "--password-stdin", stdin="not this one")
    assert (status, out) == (3, "")
    assert "tm login --register" in err
    assert printed_json(tm("login", "--email", email, "--password-stdin", "--json", stdin=PASSWORD))["url"] == url
    assert printed_json(tm("logout", "--json")) == {"url": url, "profile": "default"}
    status, _, err = tm("logout", "--json")
    assert (status, json.loads(err)["error"]["message"]) == (3, "you are not logged in")


def test_a_logout_without_the_server_says_what_it_did(logged_in: Tm, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = Profile(folder=config)
    profile.begin(Login("http://127.0.0.1:9", "a@example.com"), profile.load())
    monkeypatch.setenv("TM_URL", "http://127.0.0.1:9")
    status, out, err = logged_in("logout")
    assert (status, out) == (1, "")
    assert err.startswith("tm: this machine has forgotten its tokens, but the session has perhaps not ended: there is no connection")
    assert profile.load() is None


def test_a_new_login_ends_the_old_session(logged_in: Tm, email: str, url: str) -> None:
    assert logged_in("login", "--email", email, "--password-stdin", stdin=PASSWORD)[0] == 0
    with Client(url) as client:
        client.login(email, PASSWORD)
        assert len([session for session in client.list_sessions() if session.user_agent.startswith("tm ")]) == 1


def test_a_new_login_tries_once_to_end_the_session_on_another_server(tm: Tm, email: str, url: str, config: Path) -> None:
    accepted = 0

    def reject(server: socket.socket) -> None:
        nonlocal accepted
        with suppress(OSError):
            while True:
                server.accept()[0].close()
                accepted += 1

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        pool.submit(reject, server)
        Profile(folder=config).begin(Login(f"http://127.0.0.1:{server.getsockname()[1]}", email), Tokens("access", "refresh", 0))
        assert tm("login", "--email", email, "--password-stdin", "--register", "--name", "Ada", stdin=PASSWORD)[0] == 0
        server.shutdown(socket.SHUT_RDWR)
    assert accepted == 1
    assert tm("whoami") == (0, f"Ada ({email}) at {url}\n", "")


def test_a_task_from_add_to_undelete(logged_in: Tm) -> None:
    tm = logged_in
    status, out, _ = tm("add", "Buy", "milk", "-p", "4", "-l", "home", "-l", "shop", "--due", "tomorrow 9am")
    end = out.split()[1]
    assert (status, out) == (0, f"Added {end} Buy milk  due tomorrow 09:00\n")
    assert tm("ls") == (0, f"ID         P  DUE             TITLE     LABELS   \n{end}  ○  4  tomorrow 09:00  Buy milk  home shop\n", "")
    assert tm("edit", end, "--title", "Buy bread", "-u", "shop", "-l", "today", "--due", "none", "--start") == (0, f"Changed {end} Buy bread\n", "")
    task = printed_json(tm("show", end, "--json"))
    assert (task["labels"], task["status"], task["priority"], "due_date" in task) == (["home", "today"], "IN_PROGRESS", 4, False)
    assert "in progress" in tm("show", end)[1]
    assert tm("done", end) == (0, f"Done: {end} Buy bread\n", "")
    assert tm("ls")[1] == ""
    assert "Buy bread" in tm("ls", "--all")[1]
    assert tm("reopen", end)[0] == 0
    assert tm("rm", end) == (0, f"Deleted {end} Buy bread  (back with: tm undelete {end})\n", "")
    assert tm("show", end)[0] == 4
    assert "Buy bread" in tm("ls", "--deleted")[1]
    assert tm("undelete", task["id"]) == (0, f"Restored {end} Buy bread\n", "")
    assert tm("undelete", task["id"])[0] == 5
    assert "Buy bread" in tm("ls")[1]


def test_lists(logged_in: Tm) -> None:
    tm = logged_in
    for title, *options in [("a", "-p", "5"), ("b", "-l", 'x "y"'), ("c", "-d", "2027-01-01"), ("d", "-p", "1")]:
        assert tm("add", title, *options)[0] == 0
    tm("done", printed_json(tm("ls", "--filter", "title = d", "--json"))[0]["id"])

    def titles(*options: str) -> list[str]:
        return [task["title"] for task in printed_json(tm("ls", "--json", *options))]

    assert titles() == ["a", "c", "b"]
    assert titles("--all", "--order-by", "title desc") == ["d", "c", "b", "a"]
    assert titles("--status", "completed") == ["d"]
    assert titles("--priority", "4") == ["a"]
    assert titles("--label", 'x "y"') == ["b"]
    assert titles("--due", "2027-01-01") == ["c"]
    assert titles("--due", "2026-12-31") == []
    assert titles("--filter", "title:a OR title:b", "-p", "2") == ["a", "b"]
    assert titles("--limit", "1") == ["a"]
    assert titles("--deleted") == []


def test_many_tasks_from_the_standard_input(logged_in: Tm) -> None:
    lines = "".join(f"task {number}\n\n" for number in range(250))
    assert logged_in("add", "-", "-l", "bulk", stdin=lines) == (0, "Added 250 tasks.\n", "")
    tasks = printed_json(logged_in("ls", "--json", "--label", "bulk"))
    assert len(tasks) == 250
    assert len(logged_in("ls")[1].splitlines()) == 1 + 50
    both = [tasks[0]["id"], tasks[1]["id"][-12:]]
    assert [task["status"] for task in printed_json(logged_in("done", "--json", *both))] == ["COMPLETED"] * 2


def test_a_change_can_require_an_etag(logged_in: Tm) -> None:
    task = printed_json(logged_in("add", "x", "--json"))
    assert logged_in("edit", task["id"], "--title", "y", "--etag", "1")[0] == 0
    for verb in (["edit", "--title", "z"], ["edit", "--label", "l"], ["done"], ["reopen"], ["rm"]):
        status, out, err = logged_in(*verb, task["id"], "--etag", '"1"')
        assert (status, out) == (5, "")
        assert 'Its etag is now "2".' in err
    assert logged_in("done", task["id"], task["id"], "--etag", "2")[0] == 2


def test_a_token_of_the_environment_is_used_instead_of_the_profile(tm: Tm, url: str, tokens: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TM_TOKEN", tokens.load().access_token)
    assert tm("add", "x")[0] == 0
    monkeypatch.setenv("TM_TOKEN", "forged")
    assert tm("ls")[0] == 3
    assert tm("logout")[0] == 2


def test_the_profile_is_not_used_for_another_address(logged_in: Tm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TM_URL", "http://127.0.0.1:9")
    assert logged_in("ls")[::2] == (3, "tm: you are not logged in\nLog in to http://127.0.0.1:9 with: tm login\n")


def test_errors_asprinted_json(logged_in: Tm) -> None:
    status, out, err = logged_in("ls", "--json", "--filter", "priority >")
    assert (status, out) == (2, "")
    assert json.loads(err)["error"]["reason"] == "INVALID_FIELD"


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["ls", "--due", "someday"], 2, "'someday' is not a time; for example: today"),
        (["add", "x", "--due", "25:00"], 2, "is not a time"),
        (["add", ""], 2, "title"),
        (["add", "x" * 300], 2, "title"),
        (["show", "nothex"], 2, "is not the end of an id"),
        (["show", "ffffffffffff"], 4, "there is no task whose id ends in ffffffffffff"),
        (["show", "01a22713-ff4c-74a8-b3f0-f2e404d93bca"], 4, "There is no such task."),
        (["edit", "ffffffffffff"], 2, "there is nothing to change"),
        (["watch", "--since", "x"], 2, "resume_token"),
        (["--profile", "../x", "ls"], 2, "a profile's name"),
        (["login", "--url", "ftp://x"], 2, "is not an address"),
        (["login", "--url", "http://x:99999"], 2, "is not an address"),
        (["login", "--email", "a@example.com", "--password-stdin"], 2, "the standard input has no password"),
        (["login", "--url", "127.0.0.1:9", "--email", "a@example.com", "--password-stdin"], 2, "no password"),
        (["add"], 2, "Missing argument"),
        (["add", "x", "-p", "9"], 2, "should be less"),
        (["lss"], 2, "No such command"),
    ],
)
def test_a_foreseeable_mistake_has_a_sentence(logged_in: Tm, arguments: list[str], status: int, says: str) -> None:
    got, out, err = logged_in(*arguments)
    assert (got, out) == (status, "")
    assert says in " ".join(err.split())
    assert "Traceback" not in err


def test_a_server_that_is_not_there(tm: Tm, monkeypatch: pytest.MonkeyPatch) -> None:
    status, _, err = tm("login", "--url", "127.0.0.1:9", "--email", "a@example.com", "--password-stdin", stdin="x")
    assert status == 1
    assert err.startswith("tm: there is no connection to the server")
    assert "Is http://127.0.0.1:9 the right address?" in err


def test_a_damaged_profile(logged_in: Tm, config: Path) -> None:
    (config / "default.json").write_text("{")
    status, _, err = logged_in("ls")
    assert status == 1
    assert "log in again" in err


def test_texts_cannot_control_the_terminal(logged_in: Tm) -> None:
    assert logged_in("add", "red \x1b[31m [bold]x[/] \u202e", "-m", "\x1b]0;title\x07", "-l", "\x9b1m")[0] == 0
    (task,) = printed_json(logged_in("ls", "--json"))
    for shown in (logged_in("ls")[1], logged_in("show", task["id"])[1], logged_in("done", task["id"])[1]):
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(shown)
        assert "[bold]x[/]" in shown
