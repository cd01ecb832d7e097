"""`tm webhooks` on the running system: a webhook from its creation to its deletion, and the receiver, to which the worker sends."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from task_manager_client import Client, MemoryStore, WebhookState
from task_manager_client.profiles import Login, Profile
from tests.client.conftest import Tm, printed_json

TM = str(Path(sys.executable).with_name("tm"))
WITHIN_SECONDS = 30
URL = "https://hooks.example/tasks"
# Nothing listens there.
CLOSED = "http://127.0.0.1:9/"


def test_a_webhook_from_creation_to_deletion(logged_in: Tm) -> None:
    tm = logged_in
    assert tm("webhooks", "list") == (0, "", "")
    status, out, err = tm("webhooks", "create", URL, "--event", "task.created", "-e", "task.completed", "-m", "For the report")
    secret = out.strip()
    assert (status, secret.startswith("whsec_"), secret in err) == (0, True, False)
    (listed,) = printed_json(tm("webhooks", "list", "--json"))
    assert (listed["url"], listed["event_types"], listed["description"]) == (URL, ["task.created", "task.completed"], "For the report")
    end = listed["id"][-6:]
    assert tm("webhooks", "list")[1].splitlines()[1].split()[:4] == [end, "active", URL, "task.created"]
    assert tm("webhooks", "edit", end, "--url", f"{URL}/2", "--event", "all", "--description", "") == (0, f"Changed {end} {URL}/2  active\n", "")
    changed = printed_json(tm("webhooks", "show", end, "--json"))
    assert (changed["url"], changed["event_types"], changed["description"]) == (f"{URL}/2", [], "")
    rows = dict(line.split(None, 1) for line in tm("webhooks", "show", listed["id"])[1].splitlines())
    assert (rows["events"].strip(), rows["success"].strip(), rows["id"].strip()) == ("all", "never", listed["id"])
    assert tm("webhooks", "rm", end) == (0, "Deleted.\n", "")
    assert tm("webhooks", "rm", listed["id"])[0] == 4
    assert tm("webhooks", "rm", end)[0] == 4


def test_pause_and_resume_with_etags(logged_in: Tm) -> None:
    tm = logged_in
    created = printed_json(tm("webhooks", "create", URL, "--json"))["webhook"]
    end, etag = created["id"][-6:], created["etag"].strip('"')
    assert printed_json(tm("webhooks", "edit", end, "--pause", "--etag", etag, "--json"))["state"] == "PAUSED"
    status, _, err = tm("webhooks", "edit", end, "--resume", "--etag", etag)
    assert (status, err.splitlines()[1]) == (5, 'Its etag is now "2".')
    for write in (("rm",), ("rotate",)):
        assert tm("webhooks", *write, end, "--etag", etag)[0] == 5
    assert tm("webhooks", "edit", end, "--resume")[1] == f"Changed {end} {URL}  active\n"
    assert tm("webhooks", "edit", end)[0] == 2


def test_only_creating_and_rotating_print_a_secret(logged_in: Tm) -> None:
    tm = logged_in
    created = printed_json(tm("webhooks", "create", URL, "--json"))
    webhook_id = created["webhook"]["id"]
    status, out, err = tm("webhooks", "rotate", webhook_id)
    rotated = out.strip()
    assert (status, err) == (0, "The old secret counts for 24 hours more. Nothing shows this secret again:\n")
    again = printed_json(tm("webhooks", "rotate", webhook_id, "--json"))
    secrets = {created["secret"], rotated, again["secret"]}
    assert (len(secrets), again["id"]) == (3, webhook_id)
    for command in (
        ["list"],
        ["show", webhook_id],
        ["edit", webhook_id, "--pause"],
        ["deliveries", webhook_id],
        ["test", webhook_id],
        ["rm", webhook_id],
    ):
        said = "".join(map(str, tm("webhooks", *command, "--json")))
        assert not any(secret in said for secret in secrets), command


def test_a_test_that_fails_is_shown_and_recorded(logged_in: Tm) -> None:
    tm = logged_in
    end = printed_json(tm("webhooks", "create", CLOSED, "--json"))["webhook"]["id"][-6:]
    status, out, _ = tm("webhooks", "test", end)
    assert (status, out.startswith("The test failed: ")) == (1, True)
    status, out, _ = tm("webhooks", "test", end, "--json")
    assert (status, json.loads(out)["type"], json.loads(out)["succeeded"]) == (1, "ping", False)
    assert [each["type"] for each in printed_json(tm("webhooks", "deliveries", end, "--json", "--failed"))] == ["ping", "ping"]
    lines = tm("webhooks", "deliveries", end, "--limit", "1")[1].splitlines()
    assert (len(lines), lines[0].split()[:2], "ping" in lines[1]) == (2, ["WHEN", "EVENT"], True)


@pytest.mark.parametrize("refused", ["https://10.1.2.3/", "ftp://hooks.example/", "https://user:password@hooks.example/", "hooks.example"])
def test_a_url_that_the_server_refuses_is_a_mistake_of_usage(logged_in: Tm, refused: str) -> None:
    status, out, err = logged_in("webhooks", "create", refused)
    assert (status, out, "webhook.url" in err) == (2, "", True)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--create", "--secret-stdin"),
        ("--secret-stdin", "--event", "task.created"),
        ("--secret-stdin",),
        ("--secret-file", "/does/not/exist"),
        ("--create", "--port", "65536"),
    ],
    ids=["none", "two", "event", "no secret", "no file", "port"],
)
def test_the_receiver_does_not_start_without_exactly_one_source_of_secrets(logged_in: Tm, arguments: tuple[str, ...]) -> None:
    assert logged_in("webhooks", "listen", *arguments)[0] == 2


def test_a_secret_that_cannot_be_read_is_not_printed(logged_in: Tm) -> None:
    status, _, err = logged_in("webhooks", "listen", "--secret-stdin", stdin="whsec_short\n")
    assert (status, "whsec_short" in err) == (2, False)


@pytest.fixture
def profile(config: Path, url: str, email: str, tokens: MemoryStore) -> Profile:
    """A profile that is logged in."""
    profile = Profile(folder=config)
    profile.begin(Login(url, email))
    profile.save(tokens.load())
    return profile


class Listening:
    """A running `tm webhooks listen`, and the address at which it listens."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self._process = process
        self.url = url

    async def line(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(WITHIN_SECONDS):
            return (await self._process.stdout.readline()).decode()

    async def event(self) -> Any:
        return json.loads(await self.line())

    @property
    def runs(self) -> bool:
        return self._process.returncode is None

    def send(self, number: int) -> None:
        """Sends a signal. Popen.send_signal would also wait for a process that has ended, so that asyncio would not know its exit status."""
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    async def end(self, number: int = signal.SIGINT) -> tuple[int | None, str]:
        """Ends it, unless it has ended. Returns the exit status and the error output."""
        if self.runs:
            self.send(number)
        async with asyncio.timeout(WITHIN_SECONDS):
            _, err = await self._process.communicate()
        return self._process.returncode, err.decode()


@asynccontextmanager
async def listening(*arguments: str) -> AsyncIterator[Listening]:
    process = await asyncio.create_subprocess_exec(
        *(TM, "webhooks", "listen", "--port", "0", *arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=os.environ
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(WITHIN_SECONDS):
            said = (await process.stderr.readline()).decode()
        assert said.startswith("Listening on http://127.0.0.1:"), said
        yield Listening(process, said.split()[2].removesuffix("."))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
async def test_a_receiver_with_a_webhook_of_its_own_gets_changes_until_it_ends(profile: Profile, client: Client, end: int) -> None:
    async with listening("--create", "--json") as receiver:
        (webhook,) = client.list_webhooks()
        assert webhook.url == receiver.url
        task = client.create_task("Water the plants")
        created = await receiver.event()
        assert (created["type"], created["data"]["task"]["title"], created["repeated"]) == ("task.created", "Water the plants", False)
        client.update_task(task.id, status="COMPLETED")
        assert (await receiver.event())["type"] == "task.completed"
        assert client.test_webhook(webhook.id).http_status == 204
        assert (await receiver.event())["type"] == "ping"
        assert {each.message_id for each in client.list_webhook_deliveries(webhook.id)} >= {created["message_id"]}
        assert await receiver.end(end) == (0, "")
    assert client.list_webhooks() == ()


async def test_the_lines_are_for_people_and_the_number_of_events_can_be_limited(profile: Profile, client: Client) -> None:
    async with listening("--create", "--event", "task.updated", "--event", "project.created", "--limit", "2") as receiver:
        task = client.create_task("Water")
        client.update_task(task.id, title="Water the plants")
        project = client.create_project("Home")
        lines = [await receiver.line() for _ in range(2)]
        assert await receiver.end() == (0, "")
    assert [line.split()[1:] for line in lines] == [
        ["task.updated", task.id[-6:], "Water", "the", "plants", "title"],
        ["project.created", project.id[-6:], "Home"],
    ]
    assert client.list_webhooks() == ()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signals_that_come_while_it_ends_leave_no_webhook(profile: Profile, client: Client, number: int) -> None:
    async with listening("--create", "--limit", "1") as receiver:
        client.create_task("Water")
        await receiver.line()
        async with asyncio.timeout(WITHIN_SECONDS):
            while receiver.runs:
                receiver.send(number)
                await asyncio.sleep(0.001)
        status, error = await receiver.end()
    # Python gives up its handlers at the very end, so the last signal may be the status.
    assert (status in {0, -number}, error) == (True, ""), status
    assert client.list_webhooks() == ()


async def test_a_receiver_knows_both_secrets_of_a_rotation(profile: Profile, client: Client, tmp_path: Path) -> None:
    created = client.create_webhook(CLOSED, state=WebhookState.PAUSED)
    secrets = tmp_path / "secrets"
    secrets.write_text(f"{created.secret}\n", encoding="utf-8")

    async def pinged(*names: str) -> tuple[int, str]:
        """Returns the status of a test to a receiver with these secrets, and what the receiver said of it."""
        async with listening(*names) as receiver:
            client.update_webhook(created.webhook.id, url=receiver.url)
            status = client.test_webhook(created.webhook.id).http_status
            return status, (await receiver.end())[1]

    assert await pinged("--secret-file", str(secrets)) == (204, "")
    rotated = client.rotate_webhook_secret(created.webhook.id)
    for known in (created.secret, rotated, f"{created.secret}\n{rotated}\n"):
        secrets.write_text(known, encoding="utf-8")
        assert await pinged("--secret-file", str(secrets)) == (204, "")
    # Another rotation ends the time of the first secret.
    client.rotate_webhook_secret(created.webhook.id)
    secrets.write_text(created.secret, encoding="utf-8")
    assert await pinged("--secret-file", str(secrets)) == (400, "tm: refused a request: none of its signatures is one with the secret\n")


async def test_a_port_that_is_in_use_is_named(profile: Profile, tm: Tm) -> None:
    async with listening("--create") as receiver:
        port = receiver.url.rstrip("/").rpartition(":")[2]
        status, _, err = tm("webhooks", "listen", "--create", "--port", port)
        assert (status, f"port {port} of this machine is not free" in err) == (2, True)


async def test_the_shell_completes_webhooks(profile: Profile, client: Client) -> None:
    webhook = client.create_webhook(URL).webhook
    process = await asyncio.create_subprocess_exec(
        TM, stdout=asyncio.subprocess.PIPE, env={**os.environ, "_TM_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "tm webhooks show "}
    )
    out, _ = await process.communicate()
    assert f'"{webhook.id[-6:]}"' in out.decode()
