"""The documented differences between REST and gRPC, as data. Every other difference is a defect."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.contract.generated import Case
from tests.support.calls import VARIABLE


@dataclass(frozen=True, slots=True)
class Difference:
    """`applies` to a case with its request. `rest`: the HTTP statuses of which the answer over REST has one."""

    reason: str
    applies: Callable[[Case, Message], bool]
    rest: Collection[int]


def _in_the_path(case: Case, request: Message) -> Sequence[str]:
    return [str(reduce(getattr, variable.split("."), request)) for variable in VARIABLE.findall(case.rpc.template)]


DIFFERENCES: Final = (
    Difference(
        "The id is in the path. Without it the path is another one.", lambda case, request: "" in _in_the_path(case, request), {400, 401, 404, 405}
    ),
    Difference(
        "The id is in the path. The gateway refuses a path with an escaped slash or NUL, and `..` is another path.",
        lambda case, request: any(re.search(r"[/\\\0]|^\.+$", value) for value in _in_the_path(case, request)),
        {400, 401, 404, 405},
    ),
    Difference(
        "The gateway refuses a number in the query that no value of the enumeration has, and does not name the field.",
        lambda case, request: case.rpc.body == "" and any(_is_undefined(field, value) for field, value in request.ListFields()),
        {400, 401},
    ),
)


def _is_undefined(field: FieldDescriptor, value: object) -> bool:
    return field.enum_type is not None and value not in field.enum_type.values_by_number
