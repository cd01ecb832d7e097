"""Export, import into a new account and export again: the same content, whatever it is."""

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import icalendar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from task_manager_client import Anchor, Client, Recurrence, Reminder
from tests.client.transfer.accounts import content, exported, imported, new_account

_ANY = st.characters(codec="utf-8", exclude_characters="\0")
_TITLES = st.text(_ANY, min_size=1, max_size=30).map(lambda text: f"t{text}")
_TIMES = st.datetimes(datetime(1970, 1, 2), datetime(9000, 1, 1), timezones=st.just(UTC)).map(lambda at: at.isoformat().replace("+00:00", "Z"))  # noqa: DTZ001 - the strategy wants naive bounds
_RULES = st.sampled_from(
    ["FREQ=DAILY", "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,TH", "FREQ=MONTHLY;BYMONTHDAY=-1", "FREQ=YEARLY;COUNT=3", "FREQ=DAILY;UNTIL=99991230"]
)
_REMINDERS = st.one_of(st.builds(lambda at: {"at": at}, _TIMES), st.builds(lambda seconds: {"before_due": f"{seconds}s"}, st.integers(0, 31_622_400)))


@st.composite
def _tasks(draw: st.DrawFn, number: int, projects: int) -> dict[str, Any]:
    """A task as a line of an export. Its parent, if it has one, is an earlier task."""
    task: dict[str, Any] = {"type": "task", "id": f"t{number}", "title": draw(_TITLES), "description": draw(st.text(_ANY, max_size=50))}
    task |= {"status": draw(st.sampled_from(["PENDING", "IN_PROGRESS", "COMPLETED"])), "priority": draw(st.integers(1, 5))}
    task["labels"] = draw(st.lists(_TITLES, max_size=4))
    task["time_zone"] = draw(st.sampled_from(["", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"]))
    task["reminders"] = draw(st.lists(_REMINDERS, max_size=3))
    match draw(st.sampled_from(["", "due_on", "due_date"])):
        case "due_on":
            task["due_on"] = draw(st.dates(date(1970, 1, 2), date(9000, 1, 1))).isoformat()
        case "due_date":
            task["due_date"] = draw(_TIMES)
    if "due_on" in task or "due_date" in task:
        task["recurrence"] = draw(
            st.none() | st.builds(lambda rule, anchor: {"rrule": rule, "anchor": anchor}, _RULES, st.sampled_from(["DUE", "COMPLETION"]))
        )
    task["project_id"] = draw(st.sampled_from(["", *(f"p{each}" for each in range(projects))]))
    task["parent_id"] = draw(st.sampled_from(["", *(f"t{each}" for each in range(number))]))
    task["deleted_at"] = draw(st.sampled_from([None, None, None, "2026-12-01T00:00:00Z"]))
    return task


@st.composite
def _files(draw: st.DrawFn) -> bytes:
    names = draw(st.lists(_TITLES, max_size=3))
    lines: list[dict[str, Any]] = [
        {
            "type": "project",
            "id": f"p{number}",
            "name": name,
            "description": draw(st.text(_ANY, max_size=20)),
            "color": draw(st.sampled_from(["", "#00ff7F"])),
            "archived_at": draw(st.sampled_from([None, "2026-12-01T00:00:00Z"])),
            "deleted_at": draw(st.sampled_from([None, None, "2026-12-02T00:00:00Z"])),
        }
        for number, name in enumerate(names)
    ]
    lines += [draw(_tasks(number, len(names))) for number in range(draw(st.integers(0, 12)))]
    return "\n".join(json.dumps(line) for line in lines).encode()


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(file=_files())
def test_any_content_is_the_same_after_a_round_trip(url: str, file: bytes) -> None:
    with new_account(url) as first, new_account(url) as second:
        made = imported(first, file)
        once = exported(first)
        assert once.count(b'"type":"task"') == made.plan.tasks
        imported(second, once)
        assert content(exported(second)) == content(once)


def _lived_in(client: Client) -> None:
    """Makes projects and tasks as people do: moved, completed, moved to the bin."""
    home, work, old, gone = [client.create_project(name, description="x", color="#123456") for name in ("Home", "Work", "Old", "Home")]
    client.move_project(work.id, before_id=home.id)
    client.create_task("in old", project_id=old.id)
    client.archive_project(old.id)
    client.create_task("in gone", project_id=gone.id)
    client.delete_project(gone.id, force=True)
    tasks = [client.create_task(f"task {number}", project_id=home.id, labels=["a,b", "=c"]) for number in range(4)]
    client.move_task(tasks[3].id, before_id=tasks[0].id)
    below = client.create_task("below", parent_id=tasks[0].id, description="- one\n- two;\\")
    client.create_task("beside", parent_id=tasks[0].id)
    client.move_task(tasks[1].id, parent_id=below.id)
    rent = client.create_task(
        "Rent",
        due_on=date(2027, 1, 31),
        time_zone="Europe/Berlin",
        recurrence=Recurrence("FREQ=MONTHLY", Anchor.COMPLETION),
        reminders=[Reminder(before_due=timedelta(hours=2)), Reminder(at=datetime(2027, 1, 30, tzinfo=UTC))],
    )
    client.update_task(rent.id, status="COMPLETED")
    client.create_task("Meet", due_date=datetime(2027, 10, 31, 0, 30, tzinfo=UTC), time_zone="Europe/Berlin", recurrence=Recurrence("FREQ=WEEKLY"))
    client.delete_task(below.id)
    client.delete_task(client.create_task("alone in the bin").id)


def test_an_account_that_was_lived_in(url: str) -> None:
    with new_account(url) as first, new_account(url) as second:
        _lived_in(first)
        once = exported(first)
        made = imported(second, once)
        again = exported(second)
        assert content(again) == content(once)
        assert [project.get("name") for project in content(again)] == [None, "Work", "Home", "Old", "Home"]
        assert made.report.counts == {
            "the time of completion is that of the import": 1,
            "a completed task that repeats is not linked to the task after it": 1,
        }
        # What went to the bin together comes back together.
        (parent,) = [task for task in second.iter_tasks(show_deleted=True) if task.title == "below"]
        (child,) = [task for task in second.iter_tasks(show_deleted=True) if task.title == "task 1"]
        second.undelete_task(parent.id)
        assert second.get_task(child.id).parent_id == parent.id
        (gone,) = [project for project in second.iter_projects(show_deleted=True) if project.deleted_at]
        second.undelete_project(gone.id)
        assert [task.title for task in second.iter_tasks(project_id=gone.id)] == ["in gone"]


def _visible(ndjson: bytes) -> list[Any]:
    """Returns the part of the content that is in no bin, without what only NDJSON has."""

    def tasks(found: list[Any]) -> list[Any]:
        return [{**task, "subtasks": tasks(task["subtasks"])} for task in found if not task["in_bin"]]

    projects = [(project.get("name"), tasks(project["tasks"])) for project in content(ndjson) if not project.get("in_bin")]
    return [project for project in projects if project[1]]


def test_csv_and_icalendar_keep_what_is_in_no_bin(url: str) -> None:
    with new_account(url) as first:
        _lived_in(first)
        before = _visible(exported(first))
        for name in ("csv", "ics"):
            with new_account(url) as other:
                made = imported(other, exported(first, name), name)
                assert made.notes == set()
                assert sorted(_visible(exported(other)), key=str) == sorted(before, key=str), name


def test_another_program_reads_the_calendar(client: Client) -> None:
    _lived_in(client)
    calendar = icalendar.Calendar.from_ical(exported(client, "ics").decode())
    todos = {str(todo["SUMMARY"]): todo for todo in calendar.walk("VTODO")}
    assert len(todos) == 7
    rents = [todo for todo in calendar.walk("VTODO") if todo["SUMMARY"] == "Rent"]
    assert min((str(todo["STATUS"]), todo["DUE"].dt) for todo in rents) == ("COMPLETED", date(2027, 1, 31))
    assert [alarm["TRIGGER"].dt for alarm in rents[0].walk("VALARM")] == [timedelta(hours=22), datetime(2027, 1, 30, tzinfo=UTC)]
    meet = todos["Meet"]
    # Half past two in the night in which the clocks go back: the first time in the zone.
    assert (meet["DUE"].params["TZID"], meet["DUE"].dt.astimezone(UTC)) == ("Europe/Berlin", datetime(2027, 10, 31, 0, 30, tzinfo=UTC))
    assert meet["RRULE"] == {"FREQ": ["WEEKLY"]}
    task = todos["task 0"]
    assert list(task["CATEGORIES"].cats) == ["a,b", "=c"]
    assert str(todos["beside"]["RELATED-TO"]) == str(task["UID"])
