"""Arbitrary input to every method: no call may end with a server error."""

import asyncio
import string
from typing import Any
from urllib.parse import quote

import grpc
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.calls import every_rpc
from tests.contract.conftest import Ways
from tests.contract.table import NOWHERE, World, filled, make_world, row_of
from tests.support.accounts import Account
from tests.support.calls import VARIABLE, first_event
from tests.support.descriptors import Rpc, rpcs
from tests.support.errors import ApiError, of_response
from tests.support.tiers import sampled

# Few examples, because two tests go through all methods and each example makes one or two calls.
bounded = settings(max_examples=30)

FAULTS = {code.value[0] for code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DATA_LOSS)}

scalars = st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=30)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4), max_leaves=10)


@pytest.fixture(scope="module")
async def actor(rest: httpx.AsyncClient) -> tuple[World, Account]:
    """The account that makes the calls."""
    return await make_world(rest)


@pytest.fixture(scope="module")
async def writer(rest: httpx.AsyncClient) -> tuple[World, Account]:
    """An account whose tasks stay: the arbitrary calls of `actor` may delete its tasks."""
    return await make_world(rest)


def _bodies(rpc: Rpc) -> st.SearchStrategy[Any]:
    """Generates JSON of any form, mostly with the method's field names."""
    names = sorted(filled(row_of(rpc.name).body, NOWHERE) or {"title"})
    named = st.dictionaries(st.sampled_from(names) | st.text(max_size=5), values, max_size=6)
    return named | values


@pytest.mark.parametrize("rpc", sampled((rpc for rpc in rpcs() if not rpc.is_internal), every=3), ids=lambda rpc: rpc.name)
@bounded
@given(data=st.data())
async def test_any_body_and_query_over_rest(rpc: Rpc, actor: tuple[World, Account], rest: httpx.AsyncClient, data: st.DataObject) -> None:
    path = VARIABLE.sub(quote(data.draw(st.just(actor[0].task_id) | st.text(min_size=1, max_size=40)), safe=""), rpc.template)
    known = [field.name for field in rpc.request.DESCRIPTOR.fields] or ["x"]
    query = data.draw(st.lists(st.tuples(st.sampled_from(known) | st.text(max_size=5), st.text(max_size=20)), max_size=3))
    as_json = data.draw(st.booleans())
    content = httpx.Request("POST", "/", json=data.draw(_bodies(rpc).filter(_is_sayable))).content if as_json else data.draw(st.binary(max_size=200))
    text = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query)
    headers = {**actor[1].headers, "content-type": "application/json"}
    request = rest.build_request(rpc.verb, f"{path}?{text}" if text else path, content=content if rpc.body else None, headers=headers)
    response = await (first_event(rest, request) if rpc.streams else rest.send(request))
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        of_response(response)


@pytest.mark.slow("hundreds of calls for each method; the same input over REST is in `make test`")
@every_rpc
@bounded
@given(request=st.binary(max_size=200))
async def test_any_bytes_over_grpc(rpc: Rpc, actor: tuple[World, Account], ways: Ways, request: bytes) -> None:
    errors = await ways.by_grpc(rpc, request, actor[1])
    assert {way: error for way, error in errors.items() if _is_fault(error)} == {}


@bounded
@given(values=st.lists(st.text(string.printable.translate(str.maketrans("", "", string.whitespace)), max_size=60), min_size=1, max_size=3))
async def test_any_credentials(ways: Ways, rest: httpx.AsyncClient, values: list[str]) -> None:
    """No generated header is a valid token."""
    headers = [("authorization", " ".join(values).strip())]
    response = await rest.get("/api/v1/tasks", headers=headers)
    assert (response.status_code, of_response(response).code) == (401, 16)


@bounded
@given(
    key=st.text(string.printable.strip(), max_size=300), if_match=st.text('"*W/,1x ', max_size=20) | st.text(string.printable.strip(), max_size=60)
)
async def test_any_key_and_any_if_match(writer: tuple[World, Account], rest: httpx.AsyncClient, key: str, if_match: str) -> None:
    """The write succeeds, or the service rejects it: a malformed header, a reused key, or an etag that is not the current one."""
    headers = {**writer[1].headers, "idempotency-key": key, "if-match": if_match.strip()}
    response = await rest.patch(f"/api/v1/tasks/{writer[0].task_id}", json={"title": "a"}, headers=headers)
    outcome = "OK" if response.is_success else of_response(response).reason
    assert outcome in {"OK", "INVALID_FIELD", "IDEMPOTENCY_KEY_REUSED", "ETAG_MISMATCH"}, response.text


async def test_many_at_once_are_no_fault(actor: tuple[World, Account], rest: httpx.AsyncClient) -> None:
    """Concurrent invalid requests get the same answers as single ones."""
    calls = [rest.get(f"/api/v1/tasks?page_size={i}", headers=actor[1].headers) for i in range(-20, 20)]
    assert [response.status_code for response in await asyncio.gather(*calls)] == [400] * 20 + [200] * 20


def _is_fault(error: ApiError | None) -> bool:
    return error is not None and error.code in FAULTS


def _is_sayable(value: object) -> bool:
    """Whether JSON can express the value. NaN cannot be expressed, although Python's json writes it. Another strategy sends invalid JSON as bytes."""
    try:
        httpx.Request("POST", "/", json=value)
    except (ValueError, UnicodeEncodeError):
        return False
    return True
