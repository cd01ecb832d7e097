"""The command tm on the running system: projects, subtasks, moves, due days, repeating tasks, reminders and history."""

from datetime import date, datetime, timedelta

import pytest

from task_manager_client import Change, Client
from task_manager_client.cli.output import change_line
from tests.client.conftest import Tm, printed_json


def test_a_project_from_add_to_undelete(logged_in: Tm) -> None:
    tm = logged_in
    status, out, _ = tm("projects", "add", "Our", "home", "--color", "#3366ff")
    end = out.split()[1]
    assert (status, out) == (0, f"Added {end} Our home\n")
    assert tm("projects", "add", "Work", "-m", "The office")[0] == 0
    assert [line.split(None, 1)[1].split("  ")[0] for line in tm("projects")[1].splitlines()[1:]] == ["● Our home", "● Work"]
    assert tm("projects", "mv", "our HOME", "--after", "work") == (0, f"Moved {end} Our home\n", "")
    assert [project["name"] for project in printed_json(tm("projects", "--json"))] == ["Work", "Our home"]
    assert tm("projects", "edit", "Our home", "--name", "Home") == (0, f"Changed {end} Home\n", "")
    assert tm("add", "Pay rent", "--project", "home")[0] == 0
    status, _, err = tm("projects", "rm", "home")
    assert (status, err.splitlines()[1]) == (5, "To delete it with its tasks, add --force")
    assert tm("projects", "rm", "home", "--force") == (0, f"Deleted {end}  (back with: tm projects undelete {end})\n", "")
    assert tm("ls")[1] == ""
    assert tm("projects", "edit", end, "--name", "x")[0] == 4
    assert [project["name"] for project in printed_json(tm("projects", "--deleted", "--json"))] == ["Home"]
    assert tm("projects", "undelete", "home") == (0, f"Restored {end} Home\n", "")
    assert "Pay rent" in tm("ls", "--project", end)[1]


def test_archived_projects(logged_in: Tm) -> None:
    tm = logged_in
    for name in ("Old", "Twin", "Twin"):
        tm("projects", "add", name)
    assert tm("projects", "archive", "Old")[0] == 0
    assert "Old" not in tm("projects")[1]
    assert "archived" in tm("projects", "--all")[1]
    assert tm("add", "x", "--project", "Old")[0] == 5
    status, _, err = tm("add", "x", "--project", "Twin")
    assert (status, err.startswith("tm: 2 projects are named 'Twin'; give the end of an id: ")) == (2, True)
    assert tm("projects", "archive", err.split()[-1])[0] == 0
    assert tm("add", "x", "--project", "Twin")[0] == 0
    etag = printed_json(tm("projects", "--json"))[0]["etag"]
    assert tm("projects", "edit", "Twin", "--description", "d", "--etag", etag.strip('"'))[0] == 0
    assert tm("projects", "edit", "Twin", "--description", "e", "--etag", etag)[0] == 5
    assert printed_json(tm("projects", "unarchive", "Old", "--json"))["name"] == "Old"


def _add(tm: Tm, *arguments: str) -> str:
    task_id: str = printed_json(tm("add", "--json", *arguments))["id"]
    return task_id


def _titles(tm: Tm, *options: str) -> list[str]:
    return [task["title"] for task in printed_json(tm("ls", "--json", *options))]


def test_subtasks_and_moves(logged_in: Tm) -> None:
    tm = logged_in
    tm("projects", "add", "Home")
    top = _add(tm, "Move house", "--project", "Home")
    first, second = _add(tm, "Pack", "--parent", top[-6:]), _add(tm, "Rent a van", "--parent", top)
    _add(tm, "Books", "--parent", first)
    lines = [line[6:].rstrip() for line in tm("ls", "-P", "home")[1].splitlines()[1:]]
    assert lines == ["  ○  3       Move house", "  ○  3         Pack", "  ○  3           Books", "  ○  3         Rent a van"]
    assert tm("mv", second[-6:], "--before", first[-6:]) == (0, f"Moved {second[-6:]} Rent a van\n", "")
    tree = tm("show", top)[1].split("subtasks\n")[1].splitlines()
    assert tree == [f"├── {second[-6:]} ○ Rent a van", f"└── {first[-6:]} ○ Pack", f"    └── {tree[2][8:14]} ○ Books"]
    shown = printed_json(tm("show", top, "--json"))
    assert [child["title"] for child in shown["subtasks"]] == ["Rent a van", "Pack"]
    assert [child["title"] for child in shown["subtasks"][1]["subtasks"]] == ["Books"]
    other = _add(tm, "Elsewhere")
    # Beside a task of another list: into that list.
    assert tm("mv", second, first, "--after", other)[0] == 0
    assert _titles(tm, "--project", "inbox", "--filter", "-parent_id:*") == ["Elsewhere", "Rent a van", "Pack"]
    assert [line.split()[3] for line in tm("ls", "-P", "inbox")[1].splitlines()[1:]] == ["Elsewhere", "Rent", "Pack", "Books"]
    assert tm("mv", other, "--parent", top)[0] == 0
    assert [task["title"] for task in printed_json(tm("show", top, "--json"))["subtasks"]] == ["Elsewhere"]
    assert tm("mv", other, "--parent", "none", "--project", "inbox")[0] == 0
    assert _titles(tm, "--project", "Home") == ["Move house"]
    assert tm("mv", top, "--parent", top)[0] == 5


def test_the_list_of_all_tasks_names_the_projects(logged_in: Tm) -> None:
    tm = logged_in
    tm("projects", "add", "Home")
    tm("add", "inside", "--project", "Home")
    tm("add", "outside")
    header, *rows = tm("ls")[1].splitlines()
    assert header.split() == ["ID", "P", "DUE", "TITLE", "PROJECT"]
    assert sorted(row.split()[3:] for row in rows) == [["inside", "Home"], ["outside"]]


def test_a_task_that_repeats(logged_in: Tm) -> None:
    tm = logged_in
    made = printed_json(tm("add", "Pay rent", "--due", "1st", "--every", "month", "--remind", "1d", "--json"))
    today = datetime.now().astimezone().date()
    first = today if today.day == 1 else (today.replace(day=28) + timedelta(days=4)).replace(day=1)
    assert (made["due_on"], made["time_zone"], made["recurrence"]) == (str(first), "Europe/Berlin", {"rrule": "FREQ=MONTHLY", "anchor": "DUE"})
    assert made["reminders"] == [{"before_due": "86400s"}]
    card = tm("show", made["id"])[1]
    assert "every month" in card
    assert "1 day before" in card
    done, following = tm("done", made["id"])[1].splitlines()
    assert done.startswith(f"Done: {made['id'][-6:]} Pay rent  due ")
    assert following.startswith("Next: ")
    second = printed_json(tm("show", following.split()[1], "--json"))
    assert (second["due_on"], second["previous_id"]) == (str((first + timedelta(days=31)).replace(day=1)), made["id"])
    edited = printed_json(tm("edit", second["id"], "--every", "2 weeks", "--after-done", "--remind", "0", "--remind", "2h", "--json"))
    assert edited["recurrence"] == {"rrule": "FREQ=WEEKLY;INTERVAL=2", "anchor": "COMPLETION"}
    assert edited["reminders"] == [{"before_due": "0s"}, {"before_due": "7200s"}]
    cleared = printed_json(tm("edit", second["id"], "--every", "none", "--due", "none", "--remind", "none", "--json"))
    assert not {"recurrence", "due_at"} & cleared.keys()
    assert (cleared.get("reminders", []), cleared.get("due_on", "")) == ([], "")


def test_a_due_time_that_repeats_gets_the_local_zone(logged_in: Tm) -> None:
    tm = logged_in
    made = _add(tm, "Stand up", "--due", "2027-03-26 9:30", "--every", "weekday")
    tm("done", made)
    following = printed_json(tm("show", printed_json(tm("show", made, "--json"))["next_id"], "--json"))
    # The clock goes forward on the Sunday between them.
    assert (following["due_date"], following["time_zone"]) == ("2027-03-29T07:30:00Z", "Europe/Berlin")


def test_today_and_overdue(logged_in: Tm) -> None:
    tm = logged_in
    for title, due in (("late", "2026-01-01"), ("now", "today"), ("later", "in 2 days"), ("never", "")):
        assert tm("add", title, *(["--due", due] if due else []))[0] == 0
    tm("done", _add(tm, "over", "--due", "2026-01-02"))
    assert [task["title"] for task in printed_json(tm("today", "--json"))] == ["late", "now"]
    assert [task["title"] for task in printed_json(tm("overdue", "--json"))] == ["late"]
    assert _titles(tm, "--due", "today", "--order-by", "due_date") == ["late", "now"]
    assert "now" in tm("today")[1]
    assert tm("today", "--project", "Nowhere")[0] == 4


def test_history(logged_in: Tm, monkeypatch: pytest.MonkeyPatch) -> None:
    tm = logged_in
    task = _add(tm, "first")
    tm("edit", task, "--title", "second", "-p", "5")
    lines = [line.split() for line in tm("show", task, "--history")[1].splitlines()]
    start = lines.index(["WHEN", "WHAT", "FIELDS", "BY"])
    assert [line[2] for line in lines[start + 1 :]] == ["changed", "created"]
    assert {"title,", "priority"} <= set(lines[start + 1])
    assert lines[start + 1][-2] == "session"
    history = printed_json(tm("show", task, "--history", "--json"))["history"]
    assert [change["task"]["title"] for change in history] == ["second", "first"]
    monkeypatch.setenv("TM_TOKEN", tm("tokens", "create", "Night script", "-s", "tasks:write")[1].strip())
    tm("done", task)
    assert "  token Night script" in tm("show", task, "--history")[1]


def test_a_reminder_is_a_line_of_a_stream(client: Client) -> None:
    task = client.create_task("Pay rent", due_on=date(2027, 1, 1))
    reminder = Change.from_json({"kind": "REMINDER", "task": task.raw, "resume_token": "r"})
    line = change_line(reminder, datetime(2026, 12, 31, 9, 5, 7).astimezone())
    assert line.plain == f"09:05:07  reminder {task.id[-6:]}  ○ Pay rent  due tomorrow"


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["add", "x", "--every", "sometimes", "--due", "today"], 2, "'sometimes' does not say how to repeat; for example: day"),
        (["add", "x", "--every", "day"], 2, "a task that repeats needs a due date"),
        (["add", "x", "--due", "today", "--after-done"], 2, "--after-done belongs to --every"),
        (["add", "x", "--every", "FREQ=HOURLY", "--due", "today"], 2, "FREQ must be one of"),
        (["add", "x", "--remind", "sometimes"], 2, "'sometimes' does not say when to remind; for example: 10m"),
        (["add", "x", "--project", "Nowhere"], 4, "there is no project named 'Nowhere'"),
        (["add", "x", "--project", "a", "--parent", "ffff"], 2, "give --project or --parent"),
        (["mv", "ffffffffffff", "--before", "ffff", "--after", "eeee"], 2, "give --before or --after"),
        (["mv", "ffffffffffff", "eeeeeeeeeeee", "--etag", "1"], 2, "give one id"),
        (["projects", "edit", "x"], 2, "there is nothing to change"),
        (["projects", "add", "x", "--color", "blue"], 2, "project.color"),
        (["projects", "rm", "Nowhere"], 4, "there is no project named 'Nowhere'"),
        (["ls", "--due", "9999-12-31"], 2, "the last day of the calendar"),
    ],
)
def test_a_foreseeable_mistake_has_a_sentence(logged_in: Tm, arguments: list[str], status: int, says: str) -> None:
    got, out, err = logged_in(*arguments)
    assert (got, out) == (status, "")
    assert says in " ".join(err.split())
