"""Real answers of the running system fit the OpenAPI document, and its examples are real answers."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openapi_schema_validator import OAS31Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from tests.contract.openapi_examples import WRITING, example, recorded, unchanging, write
from tests.contract.table import ROWS, Row, filled, make_world
from tests.support.calls import RestCall, rest_call
from tests.support.descriptors import named

ROOT = "urn:openapi"


@pytest.fixture(scope="module")
async def document(rest: httpx.AsyncClient) -> dict[str, Any]:
    """The document that the gateway serves."""
    answer = await rest.get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[str, Any]]:
    """The examples of this run. If the run writes examples, they replace the stored ones."""
    examples: dict[str, Any] = {}
    yield examples
    if WRITING:
        write(examples)


def _operation(document: dict[str, Any], row: Row) -> dict[str, Any]:
    name = row.rpc.rpartition(".")[2]
    wanted = name[0].lower() + name[1:]
    return next(o for item in document["paths"].values() for o in item.values() if o["operationId"] == wanted)


def _violations(document: dict[str, Any], schema: dict[str, Any], value: Any) -> list[str]:
    registry: Registry[Any] = Registry().with_resource(ROOT, Resource.from_contents(document, default_specification=DRAFT202012))
    absolute = json.loads(json.dumps(schema).replace('"#/', f'"{ROOT}#/'))
    return [error.message for error in OAS31Validator(absolute, registry=registry).iter_errors(value)]


def _closed(schema: Any) -> Any:
    """Returns a schema whose objects may have no properties other than the described ones."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(part) for name, part in schema.items()}
    return closed | {"additionalProperties": False} if "properties" in schema and "additionalProperties" not in schema else closed


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.rpc)
async def test_an_answer_is_as_described_and_the_example_is_one(
    row: Row, rest: httpx.AsyncClient, document: dict[str, Any], seen: dict[str, Any]
) -> None:
    world, account = await make_world(rest)
    streams = named(row.rpc).streams
    body = filled(row.body, world)
    answer = await rest_call(rest, RestCall(row.verb, filled(row.path, world), (), body, streams), account.headers)
    described = _operation(document, row)["responses"][str(row.status)]
    assert answer.status_code == row.status
    (content,) = described["content"].values()
    schema = content["schema"]["properties"]["data"]["contentSchema"] if streams else content["schema"]
    schemas = {name: _closed(schema) for name, schema in document["components"]["schemas"].items()}
    value = answer.json()
    assert _violations(document | {"components": {"schemas": schemas}}, schema, value) == []
    # The request is one that the document allows.
    if body is not None:
        content = _operation(document, row)["requestBody"]["content"]["application/json"]
        assert _violations(document, content["schema"], body) == []
    name = row.rpc.rpartition(".")[2]
    seen[name] = example(body, value, streams=streams)
    if not WRITING:
        told = "the answer is not the example: OPENAPI_EXAMPLES=write .venv/bin/pytest tests/contract/test_openapi.py"
        assert unchanging(recorded().get(name)) == unchanging(seen[name]), told


def test_every_example_belongs_to_a_method() -> None:
    assert WRITING or set(recorded()) == {row.rpc.rpartition(".")[2] for row in ROWS}
