"""The program tm as a process: the live stream, Ctrl-C, pipes, a terminal, and completion in the shell."""

import asyncio
import json
import os
import pty
import signal
import sys
from pathlib import Path

import pytest

from task_manager_client import Client, MemoryStore
from task_manager_client.profiles import Login, Profile

TM = str(Path(sys.executable).with_name("tm"))
WITHIN_SECONDS = 30


@pytest.fixture
def profile(config: Path, url: str, email: str, tokens: MemoryStore) -> Profile:
    """A profile that is logged in."""
    profile = Profile(folder=config)
    profile.begin(Login(url, email))
    profile.save(tokens.load())
    return profile


async def _run(*arguments: str, **environment: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(TM, *arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, **environment}
    )
    async with asyncio.timeout(WITHIN_SECONDS):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_a_stream_shows_changes_until_ctrl_c(profile: Profile, client: Client) -> None:
    process = await asyncio.create_subprocess_exec(TM, "watch", "--json", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(WITHIN_SECONDS):
        assert json.loads(await process.stdout.readline())["kind"] == "CHECKPOINT"
        client.create_task("live")
        change = json.loads(await process.stdout.readline())
        assert (change["kind"], change["task"]["title"]) == ("CREATED", "live")
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")


async def test_the_lines_of_a_stream_are_for_people(profile: Profile, client: Client) -> None:
    since = client.list_tasks().resume_token
    made = client.create_task("first")
    client.delete_task(made.id)
    project = client.create_project("Home")
    process = await asyncio.create_subprocess_exec(TM, "watch", "--since", since, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(WITHIN_SECONDS):
        lines = [(await process.stdout.readline()).decode().split()[1:] for _ in range(3)]
        process.send_signal(signal.SIGINT)
        await process.wait()
    assert lines[:2] == [["created", made.id[-6:], "○", "first"], ["deleted", made.id[-6:], "○", "first"]]
    assert lines[2] == ["created", project.id[-6:], "●", "Home", "(project)"]


async def test_a_reader_that_ends_early_is_no_error(profile: Profile, client: Client) -> None:
    client.batch_create_tasks([{"title": "x" * 200} for _ in range(500)])
    shell = await asyncio.create_subprocess_shell(f"{TM} ls --limit 0 | head -1", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(WITHIN_SECONDS):
        out, err = await shell.communicate()
    assert (out.split()[0], err) == (b"ID", b"")


async def test_a_character_that_the_terminal_lacks_is_replaced(profile: Profile, client: Client) -> None:
    client.create_task("Größe")
    status, out, err = await _run("ls", PYTHONIOENCODING="ascii")
    assert (status, err) == (0, "")
    assert "Gr??e" in out


async def test_the_shell_completes_verbs_and_tasks(profile: Profile, client: Client) -> None:
    task = client.create_task("Buy milk")
    client.update_task(client.create_task("over").id, status="COMPLETED")
    _, out, _ = await _run(_TM_COMPLETE="complete_bash", COMP_WORDS="tm und", COMP_CWORD="1")
    assert out.split() == ["undelete"]
    _, out, _ = await _run(_TM_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="tm done ")
    assert f'"{task.id[-6:]}":"Buy milk"' in out
    assert "over" not in out
    client.create_project("Home")
    spaced = client.create_project("Two words")
    _, out, _ = await _run(_TM_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="tm add x --project ")
    assert '"Home"' in out
    assert f'"{spaced.id[-6:]}":"Two words"' in out
    _, out, err = await _run(_TM_COMPLETE="complete_bash", COMP_WORDS="tm done ", COMP_CWORD="2", TM_URL="http://127.0.0.1:9")
    assert (out.strip(), err) == ("", "")


def test_a_terminal_gets_colours_and_advice(profile: Profile, client: Client) -> None:
    client.create_task("Urgent", priority=5)
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS="80")
        os.execv(TM, [TM, "ls"])
    printed = b""
    try:
        while data := os.read(terminal, 65_536):
            printed += data
    except OSError:
        # On Linux the end of a terminal is an error.
        pass
    finally:
        os.close(terminal)
    assert os.waitpid(child, 0)[1] == 0
    assert b"\x1b[1;31mUrgent" in printed
