"""Finds the changes of the OpenAPI document that break clients of the REST API. buf compares only the protos: it sees neither paths nor bounds."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

Document = Mapping[str, Any]

# Bounds that a new release may only widen: for the first kind a greater value is narrower, for the second kind a smaller one.
_FLOORS: Final = ("minLength", "minItems", "minimum")
_CEILINGS: Final = ("maxLength", "maxItems", "maximum")
_JSON: Final = "application/json"


def breaking_changes(old: Document, new: Document) -> Iterator[str]:
    """Yields a sentence for each change after which a request or an answer of the old document no longer fits the new one."""
    for path, item in old["paths"].items():
        for method, operation in item.items():
            name = f"{method.upper()} {path}"
            found = new["paths"].get(path, {}).get(method)
            if found is None:
                yield f"{name} is gone"
            else:
                yield from _Operation(name, old, new).changes(operation, found)


class _Operation:
    def __init__(self, name: str, old: Document, new: Document) -> None:
        self._name = name
        self._old = old
        self._new = new

    def changes(self, old: Document, new: Document) -> Iterator[str]:
        if old["operationId"] != new["operationId"]:
            yield f"{self._name}: the operationId {old['operationId']} is now {new['operationId']}"
        if not old["security"] and new["security"]:
            yield f"{self._name} now needs a token"
        yield from self._parameters(old, new)
        before, after = _content(old.get("requestBody", {})), _content(new.get("requestBody", {}))
        if after is not None:
            yield from self._schema(before or {}, after, "the body", sent=True)
        for status, answer in old["responses"].items():
            if status not in new["responses"]:
                if status.startswith("2"):
                    yield f"{self._name}: the status {status} is gone"
            elif (schema := _content(answer)) is not None:
                yield from self._schema(schema, _content(new["responses"][status]) or {}, f"the answer {status}", sent=False)

    def _parameters(self, old: Document, new: Document) -> Iterator[str]:
        before = {_key(found): found for parameter in old.get("parameters", []) for found in [_resolved(parameter, self._old)]}
        after = {_key(found): found for parameter in new.get("parameters", []) for found in [_resolved(parameter, self._new)]}
        for key, parameter in after.items():
            place = f"the parameter {key[1]}"
            if key in before:
                yield from self._schema(before[key]["schema"], parameter["schema"], place, sent=True)
            if parameter.get("required") and not before.get(key, {}).get("required"):
                yield f"{self._name}: {place} is now required"
        for _, name in before.keys() - after.keys():
            yield f"{self._name}: the parameter {name} is gone"

    def _schema(self, old: Document, new: Document, place: str, *, sent: bool, seen: tuple[str, ...] = ()) -> Iterator[str]:
        """Compares what a client sends, or receives. `seen` ends the descent into a schema that contains itself."""
        if (reference := old.get("$ref", "")) in seen:
            return
        seen = (*seen, reference) if reference else seen
        old, new = _resolved(old, self._old), _resolved(new, self._new)
        if old.get("type") != new.get("type") and old:
            yield f"{self._name}: {place} is no longer {old.get('type')}, but {new.get('type')}"
            return
        yield from self._required(old, new, place, sent=sent)
        if sent:
            yield from self._bounds(old, new, place)
        for name, property_ in old.get("properties", {}).items():
            if name not in new.get("properties", {}):
                yield f"{self._name}: {place} no longer has {name}"
            else:
                yield from self._schema(property_, new["properties"][name], f"{place}, {name}", sent=sent, seen=seen)
        if "items" in old and "items" in new:
            yield from self._schema(old["items"], new["items"], f"an item of {place}", sent=sent, seen=seen)

    def _required(self, old: Document, new: Document, place: str, *, sent: bool) -> Iterator[str]:
        before, after = set(old.get("required", ())), set(new.get("required", ()))
        for name in sorted(after - before if sent else before - after):
            yield f"{self._name}: {place} {'must now' if sent else 'need no longer'} have {name}"
        gone = set(old.get("enum", ())) - set(new.get("enum", old.get("enum", ())))
        if sent and gone:
            yield f"{self._name}: {place} may no longer be {', '.join(sorted(gone))}"

    def _bounds(self, old: Document, new: Document, place: str) -> Iterator[str]:
        for keyword in (*_FLOORS, *_CEILINGS):
            after = new.get(keyword)
            if after is None or (keyword in old and (after <= old[keyword] if keyword in _FLOORS else after >= old[keyword])):
                continue
            yield f"{self._name}: {place} has a narrower {keyword}: {after}"


def _content(part: Document) -> Document | None:
    """Returns the schema of a body or an answer, or None if it has no JSON."""
    schema: Document | None = part.get("content", {}).get(_JSON, {}).get("schema")
    return schema


def _key(parameter: Document) -> tuple[str, str]:
    return parameter["in"], parameter["name"]


def _resolved(part: Document, document: Document) -> Document:
    """Returns what a reference refers to, or the part itself."""
    if "$ref" not in part:
        return part
    found: Any = document
    for name in part["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return {**found, **{name: value for name, value in part.items() if name != "$ref"}}
