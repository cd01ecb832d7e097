"""Files that are none of their format, and tasks beyond the bounds of the API: each with its line."""

import json
from collections.abc import Sequence

import pytest

from task_manager_client.transfer.report import UnreadableFile
from tests.client.transfer.reading import Reading


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("ndjson", b'{"type": "task", "title": "a"}\n\n{"type": "task"', "line 3 is not JSON"),
        ("ndjson", b"[]", "line 1 is not a JSON object"),
        ("ndjson", b'{"type": "wish"}', "line 1 is neither a task nor a project"),
        ("ndjson", b'{"type": "export", "format": "task-manager", "version": 2}', "line 1 names another format"),
        ("csv", b"", "line 1 must name the columns"),
        ("csv", b"\nNumber,Due\n1,2027-01-01\n", "line 2 must name the columns, and title must be one of them"),
        ("csv", b'title\n"a\nb"\n"c', "line 4 is not CSV"),
        ("csv", b"title\nGr\xf6\xdfe\n", "line 2 is not text in UTF-8"),
        ("todoist", b"title\nx\n", "line 1 must name the columns, and type must be one of them"),
        ("ics", b"", "line 1 must be BEGIN:VCALENDAR"),
        ("ics", b"title\r\n", "line 1 is not a line of iCalendar"),
        ("ics", b"BEGIN:VCALENDAR\r\nBEGIN:VTODO\r\nSUMMARY:a\r\n", "the component VTODO of line 2 does not end"),
        ("ics", b"BEGIN:VCALENDAR\r\nBEGIN:VTODO\r\nEND:VCALENDAR\r\n", "line 3 ends another component"),
        ("vikunja", b"PK\x03\x04", "the zip file is damaged"),
        ("vikunja", b"{}", "the file has no list of projects"),
        ("taskwarrior", b'{"description": "a"}\n{"description"', "line 2 is not JSON"),
        ("taskwarrior", b'{"title": "a"}\n', "line 1 is no task of Taskwarrior"),
    ],
)
def test_a_file_of_another_format_is_refused(name: str, data: bytes, message: str) -> None:
    with pytest.raises(UnreadableFile, match=f"^{message}"):
        Reading(name, data)


def _read(*tasks: object) -> Reading:
    return Reading("ndjson", "\n".join(json.dumps({"type": "task", **task}) for task in tasks if isinstance(task, dict)).encode())


def test_what_is_too_long_is_reported_and_not_lost() -> None:
    long = "x" * 201
    found = _read(
        {"title": long, "description": "before"},
        {"title": "b", "description": "y" * 10_001},
        {"title": "c", "labels": ["z" * 51, *map(str, range(21))]},
        {"title": "d", "reminders": [{"before_due": f"{seconds}s"} for seconds in (1, 2, 3, 4, 5, 6, 40_000_000)]},
        {"title": " "},
    )
    first, second, third, fourth, fifth = found.tasks
    assert (first.title, first.fields["description"]) == ("x" * 199 + "…", f"{long}\n\nbefore")
    assert second.fields["description"] == "y" * 9_999 + "…"
    assert third.fields["labels"] == list(map(str, range(20)))
    assert len(fourth.fields["reminders"]) == 5
    assert fifth.title == "(no title)"
    assert found.notes == {
        ("line 1", "the title is longer than 200 characters: the whole is in the description"),
        ("line 2", "the description is longer than 10000 characters: the last 2 are left out"),
        ("line 3", f"the label {'z' * 51!r} is longer than 50 characters: it is left out"),
        ("line 3", "it has more than 20 labels: left out are 20"),
        ("line 4", "a reminder is after the due date, or more than 366 days before it: it is left out"),
        ("line 4", "it has more than 5 reminders: 1 are left out"),
        ("line 5", "it has no title"),
    }


def test_fields_without_a_meaning_are_reported() -> None:
    found = _read(
        {"title": "a", "status": "LATER", "priority": 9, "due_on": "soon", "recurrence": {"rrule": "FREQ=DAILY"}, "labels": "x", "time_zone": "Mars"},
        {"title": "b", "due_on": "2027-01-01", "recurrence": {"rrule": "FREQ=DAILY;BYHOUR=9"}, "reminders": [{}]},
    )
    assert sorted((place, what.split(":")[0]) for place, what in found.notes) == [
        ("line 1", "due_on has no value that the API knows"),
        ("line 1", "labels has no value that the API knows"),
        ("line 1", "priority has no value that the API knows"),
        ("line 1", "status has no value that the API knows"),
        ("line 1", "the rule FREQ=DAILY cannot be kept"),
        ("line 1", "there is no time zone 'Mars'"),
        ("line 2", "reminders has no value that the API knows"),
        ("line 2", "the rule FREQ=DAILY;BYHOUR=9 cannot be kept"),
    ]


def _titles(found: Reading) -> Sequence[Sequence[str]]:
    return [[task.title for task in level] for level in found.plan.levels]


def test_tasks_too_deep_are_lifted() -> None:
    found = _read(*({"id": str(level), "title": str(level), "parent_id": str(level - 1) if level else ""} for level in range(7)))
    assert _titles(found) == [["0"], ["1"], ["2"], ["3"], ["4", "5", "6"]]
    assert {task.parent for task in found.plan.levels[4]} == {"3"}
    assert {place for place, _ in found.notes} == {"line 6", "line 7"}


def test_a_cycle_is_broken() -> None:
    found = _read(*({"id": key, "title": key, "parent_id": parent} for key, parent in (("a", "c"), ("b", "a"), ("c", "b"), ("d", "d"))))
    assert found.plan.tasks == 4
    assert {what for _, what in found.notes} == {"it is a subtask of its own subtask: it is no subtask now"}
    assert len(found.notes) == 2


def test_too_many_subtasks_come_out_of_their_parent() -> None:
    below = [{"id": f"c{number}", "title": f"c{number}", "parent_id": "a"} for number in range(502)]
    found = _read({"id": "a", "title": "a"}, *below, {"id": "e", "title": "e", "parent_id": "c501"})
    assert _titles(found)[0] == ["a", "c500", "c501"]
    assert _titles(found)[1] == [*(f"c{number}" for number in range(500)), "e"]
    assert {place for place, _ in found.notes} == {"line 502", "line 503"}


def test_tasks_with_the_same_id_stay_two() -> None:
    found = _read({"id": "a", "title": "1"}, {"id": "a", "title": "2"}, {"id": "b", "title": "3", "parent_id": "a"})
    assert _titles(found) == [["1", "2"], ["3"]]
    assert found.notes == {("line 2", "another task has the same id: subtasks belong to the first of the two")}
