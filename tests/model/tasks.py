"""A model of the task API in memory: a user's tasks and bin, the change log, and the answers stored under idempotency keys.

It is written from the contract and uses no code of the service. The model takes ids and times from the server's answers and checks them against the
contract. A task is a mapping as the API shows it, but its times are datetimes.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

Task: TypeAlias = Mapping[str, Any]

FIELDS = ("title", "description", "status", "priority", "due_date", "labels")
# The defaults of a new task's fields, and the values that stand for "not given".
NEW: Task = {"description": "", "status": "PENDING", "priority": 3, "labels": []}
NOT_GIVEN = {"status": "STATUS_UNSPECIFIED", "priority": 0}
NEVER, LATER = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
CREATED, UPDATED, DELETED, RESTORED = 1, 2, 3, 4
KINDS = {
    "CreateTask": CREATED,
    "BatchCreateTasks": CREATED,
    "UpdateTask": UPDATED,
    "ReplaceTask": UPDATED,
    "BatchUpdateTasks": UPDATED,
    "DeleteTask": DELETED,
    "BatchDeleteTasks": DELETED,
    "UndeleteTask": RESTORED,
}
# Filters, each with the predicate that it must equal.
FILTERS: Mapping[str, Callable[[Task], bool]] = {
    "": lambda _: True,
    "status != COMPLETED": lambda task: task["status"] != "COMPLETED",
    "NOT (status = IN_PROGRESS OR priority > 3)": lambda task: task["status"] != "IN_PROGRESS" and task["priority"] <= 3,
    "status = PENDING AND status = COMPLETED": lambda _: False,
    "labels:a": lambda task: "a" in task["labels"],
    "labels:a AND status != COMPLETED": lambda task: "a" in task["labels"] and task["status"] != "COMPLETED",
    "labels:später status = PENDING": lambda task: "später" in task["labels"] and task["status"] == "PENDING",
    "-labels:a OR priority = 5": lambda task: "a" not in task["labels"] or task["priority"] == 5,
    'title:"plan"': lambda task: "plan" in task["title"].casefold(),
    "due_date < 2026-05-02T12:00:00Z": lambda task: task.get("due_date", LATER) < datetime(2026, 5, 2, 12, tzinfo=UTC),
    "NOT due_date < 2026-05-02T12:00:00Z": lambda task: task.get("due_date", LATER) >= datetime(2026, 5, 2, 12, tzinfo=UTC),
    'NOT due_date:* AND description = ""': lambda task: "due_date" not in task and not task["description"],
    "completed_at:*": lambda task: "completed_at" in task,
}
TAG = r'(?:W/)?"[^"]*"'


@dataclass(frozen=True, slots=True)
class Item:
    """The request for one task. `fields` are the fields present in the message. An empty etag or mask means none."""

    id: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    mask: tuple[str, ...] = ()
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Write:
    """A writing call. `if_match` and `key` are headers; empty means no header."""

    rpc: str
    items: Sequence[Item]
    if_match: str = ""
    key: str = ""

    @property
    def is_batch(self) -> bool:
        """Whether the RPC is a batch."""
        return self.rpc.startswith("Batch")


@dataclass(frozen=True, slots=True)
class Query:
    """The query of a list, without its page."""

    status: str = ""
    priority: int = 0
    filter: str = ""
    show_deleted: bool = False
    order: tuple[tuple[str, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """The answer of a successful call: its tasks, none for deletions."""

    tasks: Sequence[Task]
    replayed: bool = False


@dataclass
class Refused(Exception):
    """The answer of a rejected call, which changed nothing."""

    code: str
    reason: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Tasks:
    """The state of one user. Every method answers as the API must, or raises Refused."""

    user_id: str
    there: dict[str, Task] = field(default_factory=dict)
    bin: dict[str, Task] = field(default_factory=dict)
    # Kind, id and version of each change.
    log: list[tuple[int, str, int]] = field(default_factory=list)
    kept: dict[str, tuple[Write, Done]] = field(default_factory=dict)
    # The time of the last change whose answer had one.
    last_at: datetime = NEVER

    def get(self, task_ids: Sequence[str], *, is_batch: bool = False) -> Sequence[Task]:
        """GetTask and BatchGetTasks."""
        for n, task_id in enumerate(task_ids):
            if task_id not in self.there:
                raise _not_found(n if is_batch else None)
        return [self.there[task_id] for task_id in task_ids]

    def list(self, query: Query) -> Sequence[Task]:
        """Returns all tasks of all pages of ListTasks. Tasks in the bin have no time of deletion, because the answers did not contain it."""
        of = [*self.there.values(), *(self.bin.values() if query.show_deleted else ())]
        asked = [task for task in of if query.status in ("", task["status"]) and query.priority in (0, task["priority"])]
        found = [task for task in asked if FILTERS[query.filter](task)]
        order = query.order or (("created_at", True),)
        found.sort(key=lambda task: task["id"], reverse=order[-1][1])
        for name, descending in reversed(order):
            found.sort(key=lambda task: _sort_value(task, name, descending=descending), reverse=descending)
        return found

    def write(self, write: Write, told: Sequence[Task]) -> Done:
        """Executes any writing call. `told` are the tasks in the server's answer; the model takes ids and times from them."""
        if not _is_valid(write):
            raise Refused("INVALID_ARGUMENT", "INVALID_FIELD")
        if write.key in self.kept:
            before, done = self.kept[write.key]
            if before != write:
                raise Refused("FAILED_PRECONDITION", "IDEMPOTENCY_KEY_REUSED")
            return replace(done, replayed=True)
        draft = replace(self, there=dict(self.there), bin=dict(self.bin), log=[*self.log])
        tasks = [draft._do(write, n, told[n] if n < len(told) else {}) for n in range(len(write.items))]
        done = Done([] if KINDS[write.rpc] == DELETED else tasks)
        self.there, self.bin, self.log, self.last_at = draft.there, draft.bin, draft.log, draft.last_at
        if write.key:
            self.kept[write.key] = write, done
        return done

    def _do(self, write: Write, n: int, told: Task) -> Task:
        kind, item = KINDS[write.rpc], write.items[n]
        if kind == CREATED:
            at = self._time(told)
            identity = {"id": told.get("id"), "user_id": self.user_id, "created_at": at}
            return self._leave({**identity, **_given(item.fields)}, kind, 1, at)
        before = self._to_write(write, n)
        version = version_of(before) + 1
        if kind == DELETED:
            self.bin[item.id] = {name: value for name, value in self.there.pop(item.id).items() if name != "updated_at"} | {"etag": etag_of(version)}
            self.log.append((kind, item.id, version))
            return {}
        if kind == RESTORED:
            return self._leave(self.bin.pop(item.id), kind, version, self._time(told))
        given = _given(item.fields)
        kept = {name: value for name, value in before.items() if name not in _mask(write, item)}
        after = kept | {name: given[name] for name in _mask(write, item) if name in given}
        return before if after == before else self._leave(after, kind, version, self._time(told))

    def _to_write(self, write: Write, n: int) -> Task:
        item, index = write.items[n], n if write.is_batch else None
        task = self.there.get(item.id)
        if write.rpc == "UndeleteTask":
            if task is not None:
                raise Refused("ALREADY_EXISTS", "TASK_NOT_DELETED")
            task = self.bin.get(item.id)
        if task is None:
            raise _not_found(index)
        etags = _etags(write, item)
        if etags is not None and task["etag"] not in etags:
            raise Refused("ABORTED", "ETAG_MISMATCH", {"etag": task["etag"]} | _index(index))
        return task

    def _leave(self, task: Task, kind: int, version: int, at: datetime | None) -> Task:
        """Stores the task after a change. Exactly the tasks with status COMPLETED have a time of completion."""
        left = {**task, "etag": etag_of(version), "updated_at": at}
        if left["status"] != "COMPLETED":
            left.pop("completed_at", None)
        else:
            left.setdefault("completed_at", at)
        self.there[left["id"]] = left
        self.log.append((kind, left["id"], version))
        return left

    def _time(self, told: Task) -> datetime | None:
        at: datetime | None = told.get("updated_at")
        if at is not None:
            assert at >= self.last_at, f"changed at {at}, after a change at {self.last_at}"
            self.last_at = at
        return at


def version_of(task: Task) -> int:
    """Returns the task's version: the number of its changes."""
    return int(task["etag"].strip('"'))


def etag_of(version: int) -> str:
    """Returns the etag of a version."""
    return f'"{version}"'


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a new task with these values."""
    return {**NEW, **{name: value for name, value in fields.items() if NOT_GIVEN.get(name) != value}}


def _mask(write: Write, item: Item) -> Sequence[str]:
    """Returns the fields that an update writes."""
    if write.rpc == "ReplaceTask" or item.mask == ("*",):
        return FIELDS
    return item.mask or tuple(item.fields)


def _etags(write: Write, item: Item) -> Sequence[str] | None:
    """Returns the etags of which the task must have one, or None if any etag is accepted."""
    if item.etag:
        return [item.etag]
    return re.findall(TAG, write.if_match) if write.if_match not in ("", "*") else None


def _is_valid(write: Write) -> bool:
    """Whether the request is valid, independent of the tasks that exist."""
    return _is_if_match_valid(write) and all(_is_item_valid(write, item) for item in write.items)


def _is_if_match_valid(write: Write) -> bool:
    if write.if_match in ("", "*"):
        return not write.if_match or not (write.is_batch or write.rpc == "CreateTask")
    tags = re.findall(TAG, write.if_match)
    is_list = re.fullmatch(rf"{TAG}(, {TAG})*", write.if_match) is not None
    return is_list and not write.is_batch and write.rpc != "CreateTask" and all(item.etag in ("", *tags) for item in write.items)


def _is_item_valid(write: Write, item: Item) -> bool:
    if KINDS[write.rpc] == CREATED:
        return "title" in item.fields
    if KINDS[write.rpc] == UPDATED:
        is_known = item.mask == ("*",) or set(item.mask) <= set(FIELDS)
        is_reset = write.rpc != "ReplaceTask" and not item.mask and any(item.fields.get(name) == zero for name, zero in NOT_GIVEN.items())
        return is_known and not is_reset and ("title" in item.fields or "title" not in _mask(write, item))
    return True


def _not_found(index: int | None) -> Refused:
    return Refused("NOT_FOUND", "TASK_NOT_FOUND", _index(index))


def _index(index: int | None) -> Mapping[str, str]:
    return {} if index is None else {"index": str(index)}


def _sort_value(task: Task, name: str, *, descending: bool) -> Any:
    """Returns the sort key. Tasks without a due date come last in either direction."""
    if name == "title":
        return task[name].casefold()
    if name != "due_date":
        return task[name]
    due: datetime | None = task.get("due_date")
    return ((due is None) != descending, due or NEVER)


def values_of(write: Write) -> Iterator[Mapping[str, Any]]:
    """Yields the JSON form of each item's request."""
    for item in write.items:
        if KINDS[write.rpc] in (DELETED, RESTORED):
            yield {"id": item.id, "etag": item.etag}
            continue
        fields = {name: _said(value) for name, value in item.fields.items()}
        task = fields if KINDS[write.rpc] == CREATED else {**fields, "id": item.id, "etag": item.etag}
        yield {"task": task} | ({"update_mask": ",".join(map(_camel_case, item.mask))} if item.mask else {})


def _camel_case(name: str) -> str:
    """Returns the JSON form of a path in a field mask."""
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def _said(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
