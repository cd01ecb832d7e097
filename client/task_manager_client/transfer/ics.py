"""iCalendar (RFC 5545): a VTODO for each task that is not in the bin, as calendars and lists of reminders read it.

What iCalendar has no property for is in properties of our own, whose names begin with X-TASK-MANAGER-.
"""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import BinaryIO, Final

from task_manager_client.due_values import Anchor, Recurrence, Reminder
from task_manager_client.project_values import Project
from task_manager_client.transfer import ics_times
from task_manager_client.transfer.content_lines import Component, escaped, parse, written
from task_manager_client.transfer.records import Content, Source, TaskRecord
from task_manager_client.transfer.report import Report, UnreadableFile
from task_manager_client.values import Status, Task

OWN: Final = "X-TASK-MANAGER-"
# In iCalendar 1 is the highest priority and 9 the lowest, 0 is none. 1 to 4 are high, 6 to 9 are low.
_PRIORITIES: Final = {5: 1, 4: 3, 3: 5, 2: 7, 1: 9}
_OUR_PRIORITIES: Final = {0: 3, 1: 5, 2: 5, 3: 4, 4: 4, 5: 3, 6: 2, 7: 2, 8: 1, 9: 1}
_STATUSES: Final = {Status.PENDING: "NEEDS-ACTION", Status.IN_PROGRESS: "IN-PROCESS", Status.COMPLETED: "COMPLETED"}
_OUR_STATUSES: Final = {"NEEDS-ACTION": "PENDING", "IN-PROCESS": "IN_PROGRESS", "COMPLETED": "COMPLETED", "CANCELLED": "COMPLETED"}
_READ: Final = frozenset(
    ("UID", "SUMMARY", "DESCRIPTION", "STATUS", "PRIORITY", "DUE", "DTSTART", "DURATION", "CATEGORIES", "RRULE", "RELATED-TO", "COMPLETED")
)
# They say when and by whom the file was made, or repeat the status.
_IGNORED: Final = frozenset(("DTSTAMP", "CREATED", "LAST-MODIFIED", "SEQUENCE", "PERCENT-COMPLETE", "CLASS", "TRANSP"))
_DAY: Final = timedelta(days=1)


def write(projects: Iterable[Project], tasks: Iterable[Task], file: BinaryIO, report: Report) -> None:
    """Writes the tasks, with the names of their projects."""
    names = {project.id: project.name for project in projects}
    file.write(b"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//task-manager//tm//EN\r\n")
    for task in tasks:
        file.writelines(_lines(task, names.get(task.project_id, ""), report))
    file.write(b"END:VCALENDAR\r\n")


def read(source: Source) -> Content:
    """Returns the tasks of all calendars of a file, each calendar with a name being a project. Raises UnreadableFile."""
    content = Content()
    calendars = parse(source.text)
    if not calendars:
        raise UnreadableFile("line 1 must be BEGIN:VCALENDAR, and the file is empty")
    for calendar in calendars:
        name = calendar.first("X-WR-CALNAME") or calendar.first("NAME")
        for component in calendar.components if calendar.name == "VCALENDAR" else [calendar]:
            if component.name == "VTODO":
                content.tasks.append(_task(component, name.text if name else "", content, source))
            elif component.name != "VTIMEZONE":
                source.report.count(f"a {component.name} is no task: it is left out")
    return content


def _lines(task: Task, project: str, report: Report) -> list[bytes]:
    lines = [b"BEGIN:VTODO\r\n", written("UID", task.id), written("DTSTAMP", ics_times.time_text(task.updated_at))]
    lines += [written("CREATED", ics_times.time_text(task.created_at)), written("LAST-MODIFIED", ics_times.time_text(task.updated_at))]
    lines += [written("SUMMARY", escaped(task.title)), written("STATUS", _STATUSES.get(task.status, "NEEDS-ACTION"))]
    lines.append(written("PRIORITY", str(_PRIORITIES.get(task.priority, 0))))
    if task.description:
        lines.append(written("DESCRIPTION", escaped(task.description)))
    if task.completed_at:
        lines.append(written("COMPLETED", ics_times.time_text(task.completed_at)))
    if task.labels:
        lines.append(written("CATEGORIES", ",".join(map(escaped, task.labels))))
    if task.parent_id:
        lines.append(written("RELATED-TO", task.parent_id))
    lines += _due_lines(task, report)
    if project:
        lines.append(written(f"{OWN}PROJECT", escaped(project)))
    if task.time_zone or task.due_on:
        # An empty one is UTC. Without one, a day would end in the zone of the reader.
        lines.append(written(f"{OWN}TIME-ZONE", escaped(task.time_zone)))
    for reminder in task.reminders:
        lines += _alarm(reminder, task)
    return [*lines, b"END:VTODO\r\n"]


def _due_lines(task: Task, report: Report) -> list[bytes]:
    # A rule needs a beginning (section 3.8.2.4).
    names = ("DTSTART", "DUE") if task.recurrence else ("DUE",)
    # Only for a rule it matters that the time of day is the same in summer and in winter.
    zone = task.time_zone if task.recurrence else ""
    if task.due_on:
        lines = [ics_times.day_line(name, task.due_on) for name in names]
    elif task.due_date:
        if task.due_date.microsecond:
            report.note(task.id, task.title, "the parts of a second of its due date are left out")
        lines = [ics_times.time_line(name, task.due_date.replace(microsecond=0), zone) for name in names]
    else:
        return []
    if task.recurrence:
        lines.append(written("RRULE", task.recurrence.rrule))
        if task.recurrence.anchor is Anchor.COMPLETION:
            lines.append(written(f"{OWN}REPEATS-FROM", task.recurrence.anchor.value))
    return lines


def _alarm(reminder: Reminder, task: Task) -> list[bytes]:
    if reminder.at is not None:
        trigger = written("TRIGGER", ics_times.time_text(reminder.at), VALUE="DATE-TIME")
    else:
        # A day is due at its end here, and at its beginning in iCalendar.
        before = (reminder.before_due or timedelta()) - (_DAY if task.due_on else timedelta())
        trigger = written("TRIGGER", ics_times.duration_text(-before), RELATED="END")
    return [b"BEGIN:VALARM\r\nACTION:DISPLAY\r\n", written("DESCRIPTION", escaped(task.title)), trigger, b"END:VALARM\r\n"]


def _task(todo: Component, calendar: str, content: Content, source: Source) -> TaskRecord:
    place = f"line {todo.line}"
    uid, title = todo.first("UID"), todo.first("SUMMARY")
    task = TaskRecord(uid.text if uid else "", title.text if title else "", place)
    own_project = todo.first(f"{OWN}PROJECT")
    # A file with own properties names each project; without one the task is in the inbox.
    task.project = content.named_project(own_project.text if own_project else calendar, place)
    fields = task.fields
    if text := todo.first("DESCRIPTION"):
        fields["description"] = text.text
    if labels := [label for each in todo.properties.get("CATEGORIES", ()) for label in each.texts]:
        fields["labels"] = labels
    _read_status(todo, task, source)
    _read_relations(todo, task, source)
    due = _read_due(todo, task, source)
    _read_alarms(todo, task, due, source)
    left_out = sorted(name for name in todo.properties if name not in _READ | _IGNORED and not name.startswith("X-"))
    if left_out:
        source.report.note(place, task.title, f"left out: {', '.join(left_out)}")
    return task


def _read_status(todo: Component, task: TaskRecord, source: Source) -> None:
    status, priority = todo.first("STATUS"), todo.first("PRIORITY")
    name = status.value.strip().upper() if status else "COMPLETED" if todo.first("COMPLETED") else "NEEDS-ACTION"
    task.fields["status"] = _OUR_STATUSES.get(name, "PENDING")
    if name == "CANCELLED":
        source.report.note(task.place, task.title, "it was cancelled: it is completed now")
    if todo.first("COMPLETED"):
        source.report.count("the time of completion is that of the import")
    if priority:
        value = priority.value.strip()
        task.fields["priority"] = _OUR_PRIORITIES.get(int(value) if value.isdecimal() else 0, 3)


def _read_relations(todo: Component, task: TaskRecord, source: Source) -> None:
    for relation in todo.properties.get("RELATED-TO", ()):
        kind = relation.parameters.get("RELTYPE", "PARENT").upper()
        if kind == "PARENT" and not task.parent:
            task.parent = relation.text
        else:
            source.report.note(task.place, task.title, f"the relation {kind} to {relation.text} is left out")


def _read_due(todo: Component, task: TaskRecord, source: Source) -> date | None:
    """Sets when the task is due and how it repeats. Returns the due date."""
    found, start, length = todo.first("DUE"), todo.first("DTSTART"), todo.first("DURATION")
    rule, fields = todo.first("RRULE"), task.fields
    begin = found or start
    try:
        due = ics_times.day_or_time(begin, source.local) if begin else None
        if found is None and due is not None and length is not None:
            due += ics_times.duration(length.value)
    except (ValueError, OverflowError):
        source.report.note(task.place, task.title, "its due date is none of iCalendar: it is left out")
        return None
    if found is None and start is not None and length is None and rule is None:
        source.report.note(task.place, task.title, "it has a beginning and no due date: the beginning is left out")
        return None
    _set_due(todo, due, task, source)
    if rule is not None:
        from_completion = (own := todo.first(f"{OWN}REPEATS-FROM")) is not None and own.value == Anchor.COMPLETION
        fields["recurrence"] = Recurrence(rule.value, Anchor.COMPLETION if from_completion else Anchor.DUE)
    return due


def _set_due(todo: Component, due: date | None, task: TaskRecord, source: Source) -> None:
    own, found = todo.first(f"{OWN}TIME-ZONE"), todo.first("DUE") or todo.first("DTSTART")
    if isinstance(due, datetime):
        task.fields["due_date"] = due
        zone = ics_times.zone_name(found) if found else ""
    else:
        task.fields["due_on"] = due
        zone = source.zone if due else ""
    if zone := own.text if own else zone:
        task.fields["time_zone"] = zone


def _read_alarms(todo: Component, task: TaskRecord, due: date | None, source: Source) -> None:
    reminders = []
    for alarm in todo.components:
        trigger = alarm.first("TRIGGER")
        try:
            reminder = _reminder(alarm, todo, due, source) if trigger else None
        except (ValueError, OverflowError, TypeError):
            reminder = None
        if reminder is None:
            source.report.note(task.place, task.title, f"the reminder of line {alarm.line} is left out")
        else:
            reminders.append(reminder)
    if reminders:
        task.fields["reminders"] = reminders


def _reminder(alarm: Component, todo: Component, due: date | None, source: Source) -> Reminder | None:
    (trigger, *_) = alarm.properties["TRIGGER"]
    if trigger.parameters.get("VALUE", "").upper() == "DATE-TIME":
        at = ics_times.day_or_time(trigger, source.local)
        return Reminder(at=at) if isinstance(at, datetime) else None
    before = -ics_times.duration(trigger.value)
    if due is None:
        return None
    start = todo.first("DTSTART")
    if trigger.parameters.get("RELATED", "START").upper() == "START" and start and todo.first("DUE"):
        begin = ics_times.day_or_time(start, source.local)
        if isinstance(begin, datetime) == isinstance(due, datetime):
            before += due - begin
    return Reminder(before_due=before if isinstance(due, datetime) else before + _DAY)
