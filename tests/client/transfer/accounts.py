"""New accounts, and what an account contains, without ids and the times that the server sets."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any
from uuid import uuid4

from task_manager_client import Client
from task_manager_client.transfer import exporter, importer
from task_manager_client.transfer.report import Report
from tests.client.transfer.reading import Reading
from tests.support.accounts import PASSWORD

_FIELDS = ("title", "description", "status", "priority", "due_date", "due_on", "time_zone", "recurrence", "reminders", "labels")


@contextmanager
def new_account(url: str) -> Iterator[Client]:
    """A client of a new account."""
    with Client(url) as client:
        email = f"{uuid4().hex}@example.com"
        client.register(email, PASSWORD, "Ada")
        client.login(email, PASSWORD)
        yield client


def exported(client: Client, name: str = "ndjson") -> bytes:
    """Returns what `tm export` writes."""
    file = BytesIO()
    exporter.export(client, name, file, Report(), lambda _done, _total: None)
    return file.getvalue()


def imported(client: Client, data: bytes, name: str = "ndjson", key: str = "") -> Reading:
    """Imports a file as `tm import` does."""

    reading = Reading(name, data)
    importer.run(client, reading.plan, key or importer.key_of(data, name), reading.report, lambda _done, _total: None)
    return reading


def content(ndjson: bytes) -> list[Any]:
    """Returns the projects of an export in their order, the inbox first, each with its tree of tasks in their order."""
    lines = [json.loads(line) for line in ndjson.splitlines()]
    tasks = sorted((line for line in lines if line["type"] == "task"), key=lambda task: (task["position"], task["id"]))
    projects = sorted((line for line in lines if line["type"] == "project"), key=lambda project: (project["position"], project["id"]))

    def below(project_id: str, parent_id: str) -> list[Any]:
        return [
            {**{name: task.get(name) for name in _FIELDS}, "in_bin": task.get("deleted_at") is not None, "subtasks": below(project_id, task["id"])}
            for task in tasks
            if (task["project_id"], task["parent_id"]) == (project_id, parent_id)
        ]

    inbox: list[Any] = [{"tasks": below("", "")}]
    return inbox + [
        {
            **{name: project[name] for name in ("name", "description", "color")},
            "archived": project.get("archived_at") is not None,
            "in_bin": project.get("deleted_at") is not None,
            "tasks": below(project["id"], ""),
        }
        for project in projects
    ]
