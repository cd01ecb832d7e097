"""tm export and tm import on the running system: files and pipes, dry runs, imports that break, fields that the server refuses."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from task_manager_client import Client, MemoryStore
from task_manager_client.profiles import Login, Profile
from task_manager_client.transfer import importer
from tests.client.conftest import LOST_ANSWER, NO_CONNECTION, UNAVAILABLE, Forwarding, Tm, printed_json
from tests.client.transfer.reading import SAMPLES, Reading

TM = str(Path(sys.executable).with_name("tm"))
WITHIN_SECONDS = 60


def _titles(client: Client) -> list[str]:
    return sorted(task.title for task in client.iter_tasks())


def _ndjson(path: Path, *tasks: dict[str, Any]) -> str:
    path.write_text("\n".join(json.dumps({"type": "task", **task}) for task in tasks), encoding="utf-8")
    return str(path)


def test_export_and_import_by_the_names_of_files(logged_in: Tm, tmp_path: Path) -> None:
    tm = logged_in
    assert tm("projects", "add", "Home")[0] == 0
    assert tm("add", "Buy milk", "--project", "Home", "--label", "food")[0] == 0
    files = {ending: str(tmp_path / f"tasks.{ending}") for ending in ("ndjson", "csv", "ics")}
    for file in files.values():
        assert tm("export", file) == (0, "Exported 1 task and 1 project.\n", "")
    for ending, file in files.items():
        new_projects = 1 if ending == "ndjson" else 0
        assert printed_json(tm("import", file, "--json")) == {"projects": new_projects, "tasks": 1, "earlier": 0, "notes": [], "counts": {}}
    # Files that know only the name of a project use the one that is there.
    assert [line.split()[-2:] for line in tm("projects")[1].splitlines()[1:]] == [["●", "Home"], ["●", "Home"]]
    assert (tmp_path / "tasks.csv").read_text(encoding="utf-8").splitlines()[0].startswith("id,parent_id,project,title")
    status, out, err = tm("export", "--filter", "labels:nothing", "--format", "csv")
    assert (status, len(out.splitlines()), err) == (0, 1, "Exported 0 tasks and 2 projects.\n")


def test_mistakes_are_named(logged_in: Tm, tmp_path: Path) -> None:
    tm = logged_in
    broken = tmp_path / "broken.csv"
    broken.write_text("Number\n1\n", encoding="utf-8")
    assert tm("import", str(broken)) == (2, "", "tm: line 1 must name the columns, and title must be one of them\n")
    assert tm("import", str(tmp_path / "missing.csv")) == (2, "", f"tm: {tmp_path}/missing.csv cannot be read: No such file or directory\n")
    status, _, err = tm("import", str(SAMPLES / "vikunja.json"))
    assert (status, err) == (2, "tm: give the format of the file with --from: ndjson, csv, ics, todoist, vikunja, taskwarrior\n")
    assert tm("export", str(tmp_path / "no" / "x.csv"))[0] == 2
    assert tm("export", "--json")[0] == 2
    assert tm("ls")[1] == ""


def test_a_dry_run_changes_nothing(logged_in: Tm) -> None:
    tm = logged_in
    status, out, _ = tm("import", str(SAMPLES / "Home.csv"), "--from", "todoist", "--dry-run")
    assert (status, out.splitlines()[:2]) == (0, ["Would import 6 tasks and 1 project.", "What is not as it was:"])
    assert "  line 5  Wipe the table  responsible is left out: Grace (2)" in out.splitlines()
    assert (tm("ls")[1], tm("projects")[1]) == ("", "")


@pytest.mark.parametrize(
    ("name", "file", "tasks"), [("todoist", "Home.csv", 6), ("vikunja", "vikunja.json", 4), ("taskwarrior", "taskwarrior.json", 7)]
)
def test_other_systems(logged_in: Tm, name: str, file: str, tasks: int) -> None:
    tm = logged_in
    path = str(SAMPLES / file)
    dry = printed_json(tm("import", path, "--from", name, "--dry-run", "--json"))
    done = printed_json(tm("import", path, "--from", name, "--json"))
    # The server refuses nothing that the dry run has not found.
    assert dry == done
    assert done["tasks"] == tasks == len(printed_json(tm("ls", "--all", "--json")))


def test_the_same_file_is_imported_once(logged_in: Tm, tmp_path: Path) -> None:
    tm = logged_in
    file = _ndjson(tmp_path / "a.ndjson", {"title": "a"}, {"title": "b"})
    assert printed_json(tm("import", file, "--json"))["earlier"] == 0
    assert printed_json(tm("import", file, "--json"))["earlier"] == 2
    assert len(printed_json(tm("ls", "--json"))) == 2
    assert printed_json(tm("import", file, "--again", "2", "--json"))["earlier"] == 0
    assert len(printed_json(tm("ls", "--json"))) == 4


def test_an_import_that_is_killed_continues(url: str, email: str, tokens: MemoryStore, config: Path, client: Client, tmp_path: Path) -> None:
    profile = Profile(folder=config)
    profile.begin(Login(url, email))
    profile.save(tokens.load())
    parents = [{"id": f"p{number}", "title": f"p{number}"} for number in range(12_000)]
    children = [{"id": f"c{number}", "title": f"c{number}", "parent_id": f"p{number}"} for number in range(500)]
    file = _ndjson(tmp_path / "big.ndjson", *parents, *children)

    async def killed() -> int:
        process = await asyncio.create_subprocess_exec(TM, "import", file, stdout=asyncio.subprocess.DEVNULL)
        async with asyncio.timeout(WITHIN_SECONDS):
            while not (await asyncio.to_thread(client.list_tasks, page_size=1)).tasks:
                await asyncio.sleep(0.02)
            process.kill()
            await process.wait()
        return client.list_tasks(page_size=1, include_total_size=True).total_size or 0

    before = asyncio.run(killed())
    assert 0 < before < 12_500
    data = Path(file).read_bytes()
    reading = Reading("ndjson", data)
    done = importer.run(client, reading.plan, importer.key_of(data, "ndjson", "big.ndjson", "Europe/Berlin", ""), reading.report, lambda *_: None)
    assert (done.tasks, done.earlier >= before) == (12_500, True)
    assert _titles(client) == sorted(task["title"] for task in (*parents, *children))
    child = next(client.iter_tasks(filter='title = "c7"'))
    assert client.get_task(child.parent_id).title == "p7"


def test_lost_answers_create_nothing_twice(url: str, tokens: MemoryStore, client: Client) -> None:
    transport = Forwarding(LOST_ANSWER, UNAVAILABLE, NO_CONNECTION, LOST_ANSWER, path=":batchCreate")
    data = "\n".join(json.dumps({"type": "task", "title": f"t{number}"}) for number in range(2_100)).encode()
    reading = Reading("ndjson", data)
    with Client(url, tokens=tokens, transport=transport) as faulty:
        importer.run(faulty, reading.plan, importer.key_of(data), reading.report, lambda *_: None)
    assert _titles(client) == sorted(f"t{number}" for number in range(2_100))


def test_what_the_server_refuses_is_left_out_and_reported(logged_in: Tm, tmp_path: Path) -> None:
    tm = logged_in
    file = _ndjson(
        tmp_path / "a.ndjson",
        {"title": "fine"},
        {"title": "rule", "due_on": "2027-01-01", "recurrence": {"rrule": "FREQ=WEEKLY;BYMONTHDAY=3"}},
        {"title": "labels", "labels": ["ok", "\u200b", "also"]},
        {"title": "\u200b", "due_on": "9999-12-31", "recurrence": {"rrule": "FREQ=DAILY"}},
    )
    found = printed_json(tm("import", file, "--json"))
    assert [(note["place"], note["what"].split(":")[0]) for note in found["notes"]] == [
        ("line 2", "recurrence is left out"),
        ("line 3", "labels is left out"),
        ("line 4", "the title is left out"),
        ("line 4", "due_on is left out"),
    ]
    tasks = {task["title"]: task for task in printed_json(tm("ls", "--json"))}
    assert set(tasks) == {"fine", "rule", "labels", "(no title)"}
    assert tasks["labels"]["labels"] == ["ok", "also"]
    # The same import finds the same answers.
    assert printed_json(tm("import", file, "--json")) == {**found, "earlier": 4}


async def test_pipes(url: str, email: str, tokens: MemoryStore, config: Path, client: Client) -> None:
    profile = Profile(folder=config)
    profile.begin(Login(url, email))
    profile.save(tokens.load())
    client.create_task("through a pipe")
    shell = await asyncio.create_subprocess_shell(
        f"{TM} export --format csv | {TM} import - --from csv", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(WITHIN_SECONDS):
        out, err = await shell.communicate()
    assert (out, err) == (b"Imported 1 task and 0 projects.\n", b"Exported 1 task and 0 projects.\n")
    assert _titles(client) == ["through a pipe", "through a pipe"]
