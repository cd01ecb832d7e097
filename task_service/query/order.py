"""The order of a list, parsed from its text (AIP-132). Values only."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Final

from servicekit.errors import InvalidField


class OrderField(IntEnum):
    """A field that lists can be ordered by."""

    CREATED_AT = 1
    UPDATED_AT = 2
    DUE_DATE = 3
    PRIORITY = 4
    TITLE = 5
    POSITION = 6
    DUE_AT = 7
    DUE_ON = 8


@dataclass(frozen=True, slots=True)
class OrderKey:
    """One key of an order."""

    field: OrderField
    descending: bool


Order = tuple[OrderKey, ...]
NEWEST_FIRST: Final[Order] = (OrderKey(OrderField.CREATED_AT, descending=True),)
# Clients use few orders. The validation of the request limits the length of the text.
CACHED_ORDERS: Final = 256
_ORDER_FIELDS: Final[Mapping[str, OrderField]] = {field.name.lower(): field for field in OrderField}


@lru_cache(CACHED_ORDERS)
def parse_order(text: str) -> Order:
    """Parses an `order_by` (AIP-132) such as `priority desc, due_date`. An empty text means newest first. Raises InvalidField."""
    if not text.strip():
        return NEWEST_FIRST
    keys = tuple(_order_key(part) for part in text.split(","))
    if len({key.field for key in keys}) < len(keys):
        raise InvalidField.of("order_by", "must not name a field twice")
    return keys


def _order_key(text: str) -> OrderKey:
    name, *direction = text.split() or [""]
    field = _ORDER_FIELDS.get(name)
    if field is None or direction not in ([], ["asc"], ["desc"]):
        raise InvalidField.of("order_by", f"must be a list of {', '.join(_ORDER_FIELDS)}, each with asc or desc behind it if wanted")
    return OrderKey(field, descending=direction == ["desc"])
