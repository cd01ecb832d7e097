"""The bounds of every field of every request, each with a value at the bound and a value beyond it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from taskmanager.rpc.v1 import text_pb2

from tests.contract.table import NOWHERE, World, filled, row_of
from tests.support.calls import message_of
from tests.support.descriptors import Rpc, is_output_only, rpcs

T = TypeVar("T")

# One character of four bytes in UTF-8 and two units in UTF-16, so that a wrong way of counting fails.
WIDE = "𝄞"
UUID = "0190b5a0-0000-7000-8000-000000000001"


@dataclass(frozen=True, slots=True)
class Pair:
    """Values at a bound and beyond it; None means no such value. `said` must occur in the answer's description of the field.

    `in_json`: whether the value beyond the bound means the same in JSON.
    """

    what: str
    at: Any
    beyond: Any
    said: str
    in_json: bool = True


@dataclass(frozen=True, slots=True)
class Copies:
    """Stands for a list: `count` copies of the first item in the row's request."""

    count: int


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound of a field, given by its path in the request. In a list of messages the path names the first message's field."""

    rpc: Rpc
    path: tuple[str, ...]
    pair: Pair
    element: bool

    @property
    def id(self) -> str:
        """The test id."""
        return f"{self.rpc.name.rpartition('.')[2]}-{self.field}-{self.pair.what}"

    @property
    def field(self) -> str:
        """The field's name in a violation."""
        return ".".join(self.path) + ("[0]" if self.element else "")

    def request(self, world: World, value: Any) -> Message:
        """Returns the row's request with the value in the field."""
        message: Any = message_of(self.rpc, filled(row_of(self.rpc.name).message, world))
        *parents, last = self.path
        inner = message
        for name in parents:
            inner = _inner(inner, name)
        for other in EXCLUSIVE.get(last, ()):
            inner.ClearField(other)
        if isinstance(value, Copies):
            value = [_inner(inner, last)] * value.count
        inner.ClearField(last)
        if isinstance(value, Message):
            getattr(inner, last).CopyFrom(value)
        elif isinstance(value, list):
            getattr(inner, last).extend(value)
        else:
            setattr(inner, last, value)
        return message  # type: ignore[no-any-return]


def at_length(characters: int) -> str:
    """Returns a text with that number of characters."""
    return WIDE * characters


# Fields that need more than a text of the right length, by name.
TEXTS: Mapping[str, Callable[[int], str]] = {
    "email": lambda n: "a" * (n - len("@example.com")) + "@example.com",
    "order_by": "title".ljust,
    "filter": lambda n: 'title:"' + at_length(n - len('title:""')) + '"',
    "page_token": "A".__mul__,
    "resume_token": "A".__mul__,
}
# Eight different characters, because a password must not be a short text repeated.
WIDE_8 = "".join(chr(ord(WIDE) + 7 * number) for number in range(8))
ACCENTED_8 = "e\u0301a\u0301u\u0301o\u0301i\u0301y\u0301n\u0301s\u0301"
PASSWORD = (
    Pair("min", WIDE_8, WIDE_8[:-1], "8"),
    Pair("max", WIDE_8 * 16, WIDE_8 * 16 + WIDE, "128"),
    # The length counts after NFC, which combines the two characters into one.
    Pair("max-nfc", ACCENTED_8 * 16, ACCENTED_8 * 16 + "e\u0301", "128"),
    Pair("bytes", None, "x" * 4097, "4096 bytes"),
)


def _rule(characters: int) -> str:
    """Returns a valid rule with that number of characters."""
    days = [str(day) for day in (*range(1, 32), *range(-1, -32, -1))]
    rules = (f"FREQ=YEARLY;INTERVAL={10**n};BYMONTHDAY={','.join(days[:count])}" for n in range(3) for count in range(1, len(days)))
    return next(rule for rule in rules if len(rule) == characters)


# By field: others that must not be beside its values at the bounds.
EXCLUSIVE: Mapping[str, Sequence[str]] = {"due_date": ("recurrence",), "before_id": ("after_id",)}
# The bounds of other fields than texts.
DAY = tuple(Pair(f"day-{beyond}", None, beyond, "calendar") for beyond in ("2030-02-30", "2030-1-2", "9999-12-31", "0000-01-01", "today"))
# Of a field that may be empty, and of one that a rule in CEL bounds.
ID = tuple(Pair(f"uuid-{beyond}", at, beyond, "UUID") for at, beyond in (("", "not-an-id"), (None, UUID[:-1]), (None, f"{{{UUID}}}")))
COLOR = tuple(
    Pair(f"color-{beyond}", at, beyond, "pattern") for at, beyond in (("", "red"), ("#00ff7F", "#00ff7"), (None, "#00ff7g"), (None, "#00ff7F0"))
)
# Bounds that the service checks itself, because the descriptors cannot express them, or in another form. They replace the descriptors' bounds.
NARROWER: Mapping[str, Sequence[Pair]] = {
    "taskmanager.task.v1.Task.due_on": (*DAY, Pair("max_len", None, "2030-01-020", "10")),
    "taskmanager.task.v1.Task.time_zone": (
        Pair("zone", "America/Argentina/ComodRivadavia", "Mars/Olympus", "IANA"),
        Pair("max_len", None, "x" * 65, "64"),
    ),
    "taskmanager.task.v1.Recurrence.rrule": (
        Pair("min_len", "FREQ=DAILY", "", "1"),
        Pair("max_len", _rule(200), _rule(201), "200"),
        Pair("rule", None, "FREQ=HOURLY", "FREQ"),
    ),
    "taskmanager.task.v1.Project.color": COLOR,
    "taskmanager.task.v1.Webhook.url": (
        Pair("min_len", "https://a", "", "1"),
        Pair("max_len", "https://example.com/".ljust(2000, "x"), "https://example.com/".ljust(2001, "x"), "2000"),
        Pair("ascii", None, "https://example.com/é", "ASCII"),
        *(Pair(f"url-{beyond}", None, beyond, said) for beyond, said in (("https://10.0.0.1/", "public"), ("https://a@b.c/", "credentials"))),
    ),
    "taskmanager.task.v1.Webhook.state": (
        Pair("defined", 2, 4, "defined"),
        Pair("negative", 1, -1, "defined"),
        Pair("disabled", None, 3, "ACTIVE or PAUSED"),
    ),
    "taskmanager.task.v1.Webhook.event_types": (
        Pair("items", ["task.created"], [f"{number}" for number in range(21)], "20"),
        Pair("unique", ["task.created", "task.deleted"], ["task.created", "task.created"], "unique"),
    ),
    "taskmanager.task.v1.ListProjectsRequest.order_by": (Pair("max_len", "name".ljust(200), "name".ljust(201), "200"),),
    **dict.fromkeys(
        (f"taskmanager.task.v1.{message}.{name}" for message in ("MoveTaskRequest", "ListTasksRequest") for name in ("project_id", "parent_id")), ID
    ),
    "taskmanager.auth.v1.RegisterRequest.password": PASSWORD,
    "taskmanager.auth.v1.ChangePasswordRequest.new_password": PASSWORD,
    "taskmanager.auth.v1.ApiToken.expires_at": (
        Pair("past", None, Timestamp(seconds=int(time.time()) - 1), "future"),
        Pair("days", Timestamp(seconds=int(time.time()) + 366 * 86_400), Timestamp(seconds=int(time.time()) + 367 * 86_400), "366 days"),
    ),
}
FAR_PAST = Timestamp(seconds=-62135596799)
FAR_FUTURE = Timestamp(seconds=253402300799)


def bounds() -> list[Bound]:
    """Returns all bounds of all methods for clients."""
    return [bound for rpc in rpcs() if not rpc.is_internal for bound in _of_message(rpc, rpc.request.DESCRIPTOR, ())]


def _of_message(rpc: Rpc, message: Any, path: tuple[str, ...]) -> Iterator[Bound]:
    for field in message.fields:
        if is_output_only(field):
            continue
        here = (*path, field.name)
        rules: Any = field.GetOptions().Extensions[validate_pb2.field]
        if field.is_repeated:
            yield from (Bound(rpc, here, pair, element=False) for pair in NARROWER.get(field.full_name) or _of_list(rules.repeated))
            for pair in _of_value(rpc, field, here, rules.repeated.items):
                # What the service accepts beyond the descriptors' bounds is unknown here.
                at = None if pair.at is None or field.full_name in NARROWER else [pair.at]
                yield Bound(rpc, here, Pair(pair.what, at, [pair.beyond], pair.said), element=True)
        else:
            yield from (Bound(rpc, here, pair, element=False) for pair in NARROWER.get(field.full_name) or _of_value(rpc, field, here, rules))
        if field.message_type and not field.message_type.full_name.startswith("google.protobuf."):
            yield from _of_message(rpc, field.message_type, (*path, f"{field.name}[0]") if field.is_repeated else here)


def _of_list(rules: validate_pb2.RepeatedRules) -> Iterator[Pair]:
    if rules.unique:
        # A list of given values may be as long as there are values, so a longer one repeats one of them, which is the last violation of the field.
        allowed = list(getattr(rules.items.string, "in"))
        many = [*allowed, allowed[0]] if allowed else [f"{i}" for i in range(rules.max_items + 1)]
        yield Pair("items", many[:-1], many, "unique" if allowed else str(rules.max_items))
        yield Pair("unique", many[:2], many[:1] * 2, "unique")
    else:
        yield Pair("items", Copies(rules.max_items), Copies(rules.max_items + 1), str(rules.max_items))
    if rules.HasField("min_items"):
        yield Pair("min_items", Copies(rules.min_items), Copies(rules.min_items - 1), str(rules.min_items))


def _of_value(rpc: Rpc, field: FieldDescriptor, path: tuple[str, ...], rules: validate_pb2.FieldRules) -> Iterator[Pair]:
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            yield from _of_string(TEXTS.get(field.name, at_length), rules.string)
        case FieldDescriptor.TYPE_INT32:
            yield from _of_number(rules.int32)
        case FieldDescriptor.TYPE_ENUM:
            last = max(value.number for value in _declared(field.enum_type).values)
            yield Pair("defined", last, last + 1, "defined")
            yield Pair("negative", last, -1, "defined")
        case FieldDescriptor.TYPE_MESSAGE:
            yield from _of_known_message(rpc, path, _declared(field.message_type).name)


def _of_string(text: Callable[[int], str], rules: Any) -> Iterator[Pair]:
    if rules.HasField("min_len"):
        yield Pair("min_len", text(rules.min_len) if rules.min_len > 20 else "x" * rules.min_len, "x" * (rules.min_len - 1), str(rules.min_len))
    if rules.HasField("max_len"):
        yield Pair("max_len", text(rules.max_len), text(rules.max_len + 1), str(rules.max_len))
    if rules.HasField("max_bytes"):
        yield Pair("max_bytes", WIDE * (rules.max_bytes // 4), WIDE * (rules.max_bytes // 4) + "x", str(rules.max_bytes))
    if rules.uuid:
        for beyond in ("not-an-id", UUID[:-1], UUID + "0", UUID.replace("-", ""), f"{{{UUID}}}", f"urn:uuid:{UUID}", f" {UUID}", "../tasks", "\0"):
            yield Pair(f"uuid-{beyond.encode().hex()[:24]}", UUID, beyond, "UUID")
    if allowed := list(getattr(rules, "in")):
        for beyond in ("", allowed[0].upper(), f"{allowed[0]} ", allowed[0].partition(":")[0]):
            yield Pair(f"in-{beyond.encode().hex()}", allowed[-1], beyond, "in list")
    if rules.email:
        for beyond in ("nobody", "@example.com", "a@", "a b@example.com", "a@b@example.com", "a\0@example.com"):
            yield Pair(f"email-{beyond.encode().hex()}", TEXTS["email"](20), beyond, "email")
    yield from _of_own_rules(rules)


def _of_own_rules(rules: Any) -> Iterator[Pair]:
    if rules.Extensions[text_pb2.no_nul]:
        yield Pair("nul", None, "title\0", "NUL")
    if rules.Extensions[text_pb2.not_blank]:
        yield Pair("blank", None, " \t\n\u00a0\u3000\u200b", "blank")
    if rules.Extensions[text_pb2.ascii]:
        for beyond in ("jörg@example.com", "joerg@exämple.com"):
            yield Pair(f"ascii-{beyond.encode().hex()}", None, beyond, "ASCII")


def _of_number(rules: Any) -> Iterator[Pair]:
    if rules.HasField("gte"):
        yield Pair("gte", rules.gte, rules.gte - 1, str(rules.gte))
        yield Pair("least", None, -(2**31), str(rules.gte))
    if rules.HasField("lte"):
        yield Pair("lte", rules.lte, rules.lte + 1, str(rules.lte))
    yield Pair("most", None if rules.HasField("lte") else 2**31 - 1, 2**31 - 1 if rules.HasField("lte") else None, str(rules.lte))


def _of_known_message(rpc: Rpc, path: tuple[str, ...], name: str) -> Iterator[Pair]:
    match name:
        case "Timestamp":
            yield Pair("past", FAR_PAST, Timestamp(seconds=FAR_PAST.seconds - 1), "0001-01-01", in_json=False)
            yield Pair("future", FAR_FUTURE, Timestamp(seconds=FAR_FUTURE.seconds + 1), "9999-12-31", in_json=False)
            yield Pair("extreme", None, Timestamp(seconds=2**63 - 1, nanos=2**31 - 1), "9999-12-31", in_json=False)
            yield Pair("nanos", Timestamp(nanos=999_999_999), Timestamp(nanos=1_000_000_000), "nanos", in_json=False)
            yield Pair("negative-nanos", None, Timestamp(nanos=-1), "nanos", in_json=False)
        case "Duration":
            yield Pair("duration", Duration(seconds=366 * 86_400), Duration(seconds=366 * 86_400 + 1), "31622400s", in_json=False)
            yield Pair("negative", Duration(), Duration(seconds=-1), "0", in_json=False)
            yield Pair("fraction", None, Duration(nanos=1000), "whole", in_json=False)
        case "FieldMask":
            mask: Any = message_of(rpc, filled(row_of(rpc.name).message, NOWHERE))
            for part in path:
                mask = _inner(mask, part)
            yield from _of_mask(mask.paths[0])


def _of_mask(writable: str) -> Iterator[Pair]:
    """`writable` is a field that the mask may name."""
    yield Pair("paths", FieldMask(paths=[writable] * 32), FieldMask(paths=[writable] * 33), "32")
    yield Pair("path", None, FieldMask(paths=["x" * 65]), "64")
    for path in ("no_such_field", "id", "etag", "created_at", f"{writable}.length", "", f"*.{writable}", f"{writable},id"):
        # In JSON a mask is a single text, in which these paths mean other masks.
        in_json = path not in {"", f"{writable},id"}
        yield Pair(f"mask-{path}", FieldMask(paths=["*"]), FieldMask(paths=[path]), "must name only", in_json)


def _inner(message: Any, name: str) -> Any:
    """Returns the value of a field, or the first item of a list."""
    value = getattr(message, name.removesuffix("[0]"))
    return value[0] if message.DESCRIPTOR.fields_by_name[name.removesuffix("[0]")].is_repeated else value


def _declared(type_of_field: T | None) -> T:
    assert type_of_field is not None
    return type_of_field
