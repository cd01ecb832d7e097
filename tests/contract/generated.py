"""Generates calls from the descriptors, valid and invalid ones, by a seed. The same call can be made in two worlds over different ways."""

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.contract.bounds import Bound, bounds
from tests.contract.table import World, filled, row_of
from tests.support.calls import message_of
from tests.support.descriptors import Rpc, is_output_only, rpcs

# Texts for fields of any kind. None contains a dollar sign, which would begin a name of the world.
TEXTS: Final = (
    *("", " ", "a", "Write the plan", "é", "e\u0301", "𝄞", "\u00a0", "\u200b", "a\0b", "a\nb", "<b>", "%2F", "a/b", "..", "null", "-1", "0190b5a0"),
    *("x" * 200, "x" * 201, "ß" * 51, "0190b5a0-0000-7000-8000-000000000001", "2026-01-01T00:00:00Z", "PENDING", "ΔΡΌΜΟΣ"),
)
# Names of the world for fields of any kind. None is a secret: the system keeps and logs what a field holds, and the canary searches there.
NAMES: Final = (
    *("$task_id", "$second_task_id", "$binned_task_id", "$project_id", "$second_project_id", "$binned_project_id"),
    *("$session_id", "$email", "$resume_token", "$api_token_id", "$webhook_id"),
)
FILTERS: Final = (
    *("", "status = PENDING", "priority >= 3 AND NOT labels:work", 'title:"task"', "due_date < 2027-01-01", "title", "status = ", "(priority = 1"),
    *(
        "priority = 9",
        "unknown = 1",
        "completed_at:*",
        'title = "The task" OR status != COMPLETED',
        "labels:work -labels:later",
        "due_date = 2026-02-30",
    ),
)
ORDERS: Final = (
    "position",
    "name",
    "name desc",
    "position, name",
    "",
    "title",
    "priority desc, title",
    "due_date",
    "created_at",
    "title desc,",
    "title asc",
    "unknown",
    "title,title",
    "Title",
)
# In JSON, paths are in camel case and joined by commas.
MASKS: Final = (
    "dueOn,timeZone",
    "recurrence",
    "reminders",
    "dueDate,recurrence",
    "name,color",
    "url,eventTypes",
    "description,state",
    "title",
    "title,labels",
    "dueDate",
    "*",
    "status,priority,description",
    "id",
    "noSuch",
    "title,title",
    "task.title",
    "name",
    "email",
)
NUMBERS: Final = (0, 1, 3, 5, 6, 20, 100, 101, -1, 2**31 - 1, -(2**31))
TIMES: Final = (
    "2026-12-01T00:00:00Z",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:01Z",
    "9999-12-31T23:59:59.999999999Z",
    "2030-01-02T03:04:05.678901Z",
)
DURATIONS: Final = ("0s", "3600s", "31622400s", "31622401s", "1.5s", "-1s")
KEYS: Final = ("key-1", "key-2", "key-3", "k" * 255, "k" * 256)
IF_MATCHES: Final = ('"1"', '"2"', "*", '"x"', 'W/"1"', "1", '"1", "2"')
# Texts that no other field has: a test of the whole run looks for passwords in stores and logs.
PASSWORDS: Final = ("", "seven77", "y" * 129, "\u00a0 only blanks \u00a0", "another horse, another battery", "$password")
BY_NAME: Final[Mapping[str, Sequence[Any]]] = {
    "filter": FILTERS,
    "order_by": ORDERS,
    "url": ("https://hooks.example/tasks", "http://127.0.0.1:9/", "https://10.0.0.1/", "https://user@example.com", "example.com", ""),
    "event_types": ("task.created", "task.reminder", "task.snoozed", ""),
    "color": ("", "#00ff7F", "#0f7", "red"),
    "due_on": ("", "2030-01-02", "2030-02-30", "9999-12-30", "9999-12-31"),
    "time_zone": ("", "UTC", "Europe/Berlin", "europe/berlin"),
    "rrule": ("FREQ=DAILY", "FREQ=MONTHLY;BYMONTHDAY=31", "FREQ=WEEKLY;COUNT=1", "FREQ=HOURLY", "FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=30"),
    **dict.fromkeys(("password", "current_password", "new_password"), PASSWORDS),
}


@dataclass(frozen=True, slots=True)
class Case:
    """A call. `request` makes its message for a world. `is_forged`: the caller's access token is not valid."""

    rpc: Rpc
    what: str
    request: Callable[[World], Message]
    headers: Mapping[str, str] = field(default_factory=dict)
    is_forged: bool = False

    def __str__(self) -> str:
        return f"{self.rpc.name} {self.what[:2000]} {dict(self.headers)}{' forged' if self.is_forged else ''}"


def cases(seed: int, count: int) -> list[Case]:
    """Returns `count` cases."""
    chance = random.Random(seed)
    # Two accounts cannot have the same email.
    beyond = [bound for bound in bounds() if bound.pair.in_json and bound.path != ("email",)]
    clients = [rpc for rpc in rpcs() if not rpc.is_internal]
    return [_at_a_bound(chance, chance.choice(beyond)) if chance.random() < 0.3 else _varied(chance, chance.choice(clients)) for _ in range(count)]


def _at_a_bound(chance: random.Random, bound: Bound) -> Case:
    value = chance.choice([value for value in (bound.pair.at, bound.pair.beyond) if value is not None])
    what = f"{bound.id}, {'at' if value is bound.pair.at else 'beyond'} the bound"
    return Case(bound.rpc, what, lambda world: _with_body(bound.rpc, bound.request(world, value)))


def _varied(chance: random.Random, rpc: Rpc) -> Case:
    values = _vary(chance, copy.deepcopy(dict(row_of(rpc.name).message)), rpc.request.DESCRIPTOR, 0.25)
    headers = {}
    if rpc.writes and chance.random() < 0.3:
        headers["idempotency-key"] = chance.choice(KEYS)
    if rpc.writes and chance.random() < 0.2:
        headers["if-match"] = chance.choice(IF_MATCHES)
    return Case(rpc, str(values), lambda world: _with_body(rpc, message_of(rpc, filled(values, world))), headers, is_forged=chance.random() < 0.05)


def _with_body(rpc: Rpc, message: Message) -> Message:
    """A REST request always has its body, so the field of the body is always present."""
    if rpc.body not in {"", "*"}:
        getattr(message, rpc.body).SetInParent()
    return message


def _vary(chance: random.Random, values: dict[str, Any], message: Any, share: float) -> dict[str, Any]:
    """Drops, replaces or adds about that share of the fields."""
    for each in message.fields:
        if chance.random() < share:
            for name in _alternatives(each):
                values.pop(name, None)
            if chance.random() < 0.7:
                values[each.name] = _value(chance, each)
        elif isinstance(values.get(each.name), dict):
            assert each.message_type is not None
            values[each.name] = _vary(chance, values[each.name], each.message_type, share)
        elif each.message_type and each.is_repeated and each.name in values:
            values[each.name] = [_vary(chance, item, each.message_type, share) for item in values[each.name]]
    return values


def _value(chance: random.Random, each: FieldDescriptor) -> Any:
    if each.is_repeated:
        return [_one(chance, each) for _ in range(chance.choice((0, 1, 2, 3, 21)))]
    return _one(chance, each)


def _one(chance: random.Random, each: FieldDescriptor) -> Any:
    match each.type:
        case FieldDescriptor.TYPE_STRING:
            return chance.choice(BY_NAME.get(each.name) or (NAMES if chance.random() < 0.4 else TEXTS))
        case FieldDescriptor.TYPE_BOOL:
            return chance.random() < 0.5
        case FieldDescriptor.TYPE_ENUM:
            assert each.enum_type is not None
            return chance.choice([*each.enum_type.values_by_number, 99, -1])
        case FieldDescriptor.TYPE_MESSAGE:
            assert each.message_type is not None
            return _message(chance, each.message_type)
    return chance.choice(NUMBERS)


def _message(chance: random.Random, message: Any) -> Any:
    match message.full_name:
        case "google.protobuf.Timestamp":
            return chance.choice(TIMES)
        case "google.protobuf.Duration":
            return chance.choice(DURATIONS)
        case "google.protobuf.FieldMask":
            return chance.choice(MASKS)
    values: dict[str, Any] = {}
    for each in message.fields:
        if chance.random() < (0.1 if is_output_only(each) else 0.5) and not values.keys() & _alternatives(each):
            values[each.name] = _value(chance, each)
    return values


def _alternatives(each: FieldDescriptor) -> set[str]:
    """Returns the names of the fields of which at most one may be present, with the field's own."""
    return {each.name} if each.containing_oneof is None else {other.name for other in each.containing_oneof.fields}
