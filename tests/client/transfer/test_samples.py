"""What the import makes of a file of each format. The samples follow the documentation of the formats."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from zipfile import ZipFile

import pytest

from task_manager_client import Anchor, Recurrence, Reminder
from tests.client.transfer.reading import SAMPLES, ZONE, Reading


@pytest.fixture(autouse=True)
def _zone(berlin: Iterator[None]) -> None:
    """Todoist's dates are read in the time zone of the process."""


def test_csv() -> None:
    found = Reading.sample("csv", "tasks.csv")
    assert [(project.name, project.by_name) for project in found.plan.projects] == [("Home", True), ("Work", True)]
    milk = found.task("Buy milk")
    assert milk.project == "home"
    assert milk.fields == {
        "description": "skimmed",
        "labels": ["shopping", "food"],
        "status": "PENDING",
        "priority": 5,
        "due_on": date(2027, 1, 5),
        "time_zone": ZONE,
    }
    report = found.task("Write the report\nin two parts")
    assert (report.place, report.fields["due_date"]) == ("line 3", datetime(2027, 1, 5, 8, tzinfo=UTC))
    assert report.fields["recurrence"] == Recurrence("FREQ=WEEKLY;BYDAY=MO")
    assert report.fields["reminders"] == [Reminder(before_due=timedelta(hours=1)), Reminder(at=datetime(2027, 1, 4, 8, tzinfo=UTC))]
    draft = found.task("Draft")
    assert (draft.parent, draft.project, draft.fields["status"]) == ("2", "work", "COMPLETED")
    # An apostrophe keeps spreadsheets from executing a cell.
    assert found.task("=SUM(1)").fields["labels"] == ["a", "b, c"]
    assert {place for place, _ in found.notes} == {"line 6", "line 7"}
    assert [what.split(":")[0] for place, what in sorted(found.notes) if place == "line 6"] == [
        "'soon' is not a reminder such as 3600s or 2026-12-24T09",
        "it has no title",
        "its parent is not in the file",
        "the rule FREQ=WEEKLY cannot be kept",
        "there is no priority '9'",
        "there is no status 'later'",
    ]
    assert found.report.counts == Counter({"the column effort is left out": 1})


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_csv_of_other_spreadsheets(delimiter: str) -> None:
    found = Reading("csv", f"\ufeffTitle{delimiter}Due\r\nGröße, 2{delimiter}2027-01-05 09:00\r\n\r\n".encode())
    assert [(task.title, task.fields["due_date"]) for task in found.tasks] == [("Größe, 2", datetime(2027, 1, 5, 8, tzinfo=UTC))]


def test_todoist() -> None:
    found = Reading.sample("todoist", "Home.csv")
    assert [project.name for project in found.plan.projects] == ["Home"]
    kitchen = found.task("Clean the kitchen")
    assert kitchen.fields == {
        "description": "All of it\n\nComment: Use the blue cloth",
        "labels": ["chores", "weekend"],
        "priority": 2,
        "due_date": datetime(2026, 12, 2, 8, tzinfo=UTC),
        "time_zone": ZONE,
        "recurrence": Recurrence("FREQ=DAILY;INTERVAL=3", Anchor.COMPLETION),
    }
    table = found.task("Wipe the table")
    assert (table.parent, table.fields["priority"]) == (kitchen.key, 5)
    # The time on the clock of New York.
    assert table.fields["due_date"] == datetime(2027, 2, 1, 23, 30, tzinfo=UTC)
    assert found.task("Under the table").parent == table.key
    water = found.task("Water ada@example.com about plants")
    assert (water.fields["labels"], water.fields["due_on"], water.parent) == (["Garden"], date(2026, 12, 24), "")
    # The file was written on 2 December.
    gardener = found.task("Pay the gardener")
    assert (gardener.fields["due_on"], gardener.fields["recurrence"]) == (date(2027, 1, 1), Recurrence("FREQ=MONTHLY;BYMONTHDAY=1"))
    assert found.task("Prune").fields["description"] == "Comment: Photo"
    assert found.notes == {
        ("line 5", "responsible is left out: Grace (2)"),
        ("line 5", "duration is left out: 30"),
        ("line 9", "the date 'každý den' (cs) is none that tm understands: it is left out"),
        ("line 10", "a file of a comment is left out"),
        ("line 12", "a row of the type 'poll' is left out"),
    }


@pytest.mark.parametrize(
    ("text", "rule", "due"),
    [
        ("every day", "FREQ=DAILY", date(2026, 12, 2)),
        ("every weekday", "FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR", date(2026, 12, 2)),
        ("every workday at 17:30", "FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR", datetime(2026, 12, 2, 16, 30, tzinfo=UTC)),
        ("every mon, fri", "FREQ=WEEKLY;BYDAY=MO,FR", date(2026, 12, 4)),
        ("every other week", "FREQ=WEEKLY;INTERVAL=2", date(2026, 12, 2)),
        ("every 15", "FREQ=MONTHLY;BYMONTHDAY=15", date(2026, 12, 15)),
        ("every last day", "FREQ=MONTHLY;BYMONTHDAY=-1", date(2026, 12, 31)),
        ("ev 3rd fri 8pm", "FREQ=MONTHLY;BYDAY=3FR", datetime(2026, 12, 18, 19, tzinfo=UTC)),
        ("monthly", "FREQ=MONTHLY", date(2026, 12, 2)),
        ("every quarterly", "FREQ=MONTHLY;INTERVAL=3", date(2026, 12, 2)),
        ("every week starting 1 jan 2027", "FREQ=WEEKLY", date(2027, 1, 1)),
        ("every week until 1 jan 2027", "FREQ=WEEKLY;UNTIL=20270101", date(2026, 12, 2)),
    ],
)
def test_todoist_repeats(text: str, rule: str, due: date) -> None:
    found = Reading("todoist", f'TYPE,CONTENT,DATE\ntask,x,"{text}"\n'.encode())
    (task,) = found.tasks
    assert found.notes == set()
    assert task.fields["recurrence"] == Recurrence(rule)
    assert task.fields.get("due_on", task.fields.get("due_date")) == due
    assert task.project == ""


def test_vikunja() -> None:
    found = Reading.sample("vikunja", "vikunja.json")
    assert [(project.name, project.color, project.is_archived) for project in found.plan.projects] == [
        ("House", "#3366ff", True),
        ("House / Kitchen", "", False),
    ]
    call = found.task("Call Grace")
    assert call.project == ""
    assert call.fields == {
        "description": "About compilers & this (https://example.com)\n\n- one\n- two\n\nComment of Ada: She is away",
        "labels": ["phone"],
        "priority": 5,
        "status": "IN_PROGRESS",
        "due_date": datetime(2027, 3, 1, 10, tzinfo=UTC),
        "time_zone": ZONE,
        "recurrence": Recurrence("FREQ=WEEKLY;INTERVAL=2"),
        "reminders": [Reminder(before_due=timedelta(hours=1)), Reminder(at=datetime(2027, 2, 28, 9, tzinfo=UTC))],
    }
    number = found.task("Find the number")
    assert (number.parent, number.fields["status"], number.fields["priority"], "due_date" in number.fields) == (call.key, "COMPLETED", 3, False)
    assert [task.title for task in found.tasks if task.project == "project 2"] == ["Filter", "Rent"]
    assert found.task("Rent").fields["recurrence"] == Recurrence("FREQ=MONTHLY")
    assert found.notes == {
        ("task 22", "it repeats every 7200 seconds: only whole days can be kept"),
        ("task 21", "the relation related to task 11 is left out"),
        ("task 21", "its start: left out"),
        ("task 21", "attachments: left out"),
        ("task 21", "favorite: left out"),
        ("project 3", "projects are in no other ones: its name is now House / Kitchen"),
    }


def test_vikunja_as_a_zip_file() -> None:
    zipped = BytesIO()
    with ZipFile(zipped, "w") as archive:
        archive.write(SAMPLES / "vikunja.json", "data.json")
        archive.writestr("VERSION", "v1.0.0")
    found = Reading("vikunja", zipped.getvalue())
    assert [task.title for task in found.tasks] == [task.title for task in Reading.sample("vikunja", "vikunja.json").tasks]


def test_taskwarrior() -> None:
    found = Reading.sample("taskwarrior", "taskwarrior.json")
    milk = found.task("Buy milk")
    assert found.plan.projects[0].name == "Home.Kitchen"
    # Midnight is the day.
    assert milk.fields["due_on"] == date(2027, 1, 5)
    assert (milk.fields["labels"], milk.fields["priority"]) == (["shopping", "food"], 5)
    write = found.task("Write")
    assert (write.fields["status"], write.fields["due_date"]) == ("IN_PROGRESS", datetime(2027, 1, 5, 15, 30, tzinfo=UTC))
    assert write.fields["description"] == "first page\nhttps://example.com"
    # Of a task that repeats, only the last open one goes on.
    rents = [(task.fields["due_on"], task.fields.get("recurrence")) for task in found.tasks if task.title == "Rent"]
    assert rents == [(date(2026, 12, 2), None), (date(2027, 1, 1), Recurrence("FREQ=MONTHLY"))]
    assert found.task("Backup").fields["recurrence"] == Recurrence("FREQ=WEEKLY;INTERVAL=2")
    assert found.notes == {
        ("line 3", "depends is left out: ['00000000-0000-0000-0000-000000000001']"),
        ("line 10", "there is no priority 'X': it has the priority 3"),
        ("line 10", "wait is left out: 20270101T000000Z"),
        ("line 10", "it repeats 'PT8H': that cannot be kept"),
    }
    assert found.report.counts["a deleted task is left out"] == 1


def test_taskwarrior_in_other_layouts() -> None:
    pretty = Reading("taskwarrior", b'[\n  {\n    "description": "a",\n    "status": "pending"\n  }\n]\n')
    lines = Reading("taskwarrior", b'{"description": "a", "status": "pending"}\n{"description": "b", "status": "pending"}\n')
    assert [(task.place, task.title) for task in pretty.tasks + lines.tasks] == [("task 1", "a"), ("line 1", "a"), ("line 2", "b")]


def test_icalendar() -> None:
    found = Reading.sample("ics", "reminders.ics")
    assert [project.name for project in found.plan.projects] == ["Home"]
    milk = found.tasks[0]
    assert milk.title == "Buy milk, eggs; and a long list of other things that have to be folded in the file"
    assert milk.fields == {
        "description": "first line\nsecond line",
        "labels": ["food", "in,out", "shop"],
        "status": "PENDING",
        "priority": 5,
        "due_on": date(2027, 1, 5),
        "time_zone": ZONE,
        # Six hours before the day begins, which is due at its end.
        "reminders": [Reminder(before_due=timedelta(hours=30))],
    }
    call = found.task("Call")
    assert (call.parent, call.fields["status"], call.fields["time_zone"]) == (milk.key, "IN_PROGRESS", ZONE)
    assert (call.fields["due_date"], call.fields["recurrence"]) == (datetime(2027, 1, 5, 9, tzinfo=UTC), Recurrence("FREQ=WEEKLY;UNTIL=20271231"))
    # Half an hour before it begins, an hour before it is due.
    assert call.fields["reminders"] == [Reminder(before_due=timedelta(minutes=90)), Reminder(at=datetime(2027, 1, 4, 8, tzinfo=UTC))]
    over = found.task("Over")
    assert (over.fields["status"], over.fields["due_date"], over.fields["recurrence"]) == (
        "COMPLETED",
        datetime(2027, 1, 5, 10, 30, tzinfo=UTC),
        None,
    )
    assert found.notes == {
        ("line 28", "left out: LOCATION"),
        ("line 46", "it was cancelled: it is completed now"),
        ("line 46", "the rule FREQ=HOURLY cannot be kept: FREQ must be one of DAILY, WEEKLY, MONTHLY, YEARLY"),
    }
    assert found.report.counts == Counter({"a VEVENT is no task: it is left out": 1})
