"""Every bound in `proto/`: a value at the bound is accepted. A value beyond it gets INVALID_ARGUMENT, which names the field and the bound."""

import httpx
import pytest

from tests.contract.bounds import Bound, bounds
from tests.contract.conftest import Ways
from tests.contract.table import World, make_world, row_of
from tests.support.accounts import Account
from tests.support.calls import rest_refusal, transcoded
from tests.support.tiers import sampled

REFUSALS = {"INVALID_FIELD", "MALFORMED_REQUEST"}
INVALID_ARGUMENT, NOT_FOUND = 3, 5
# One library enforces all bounds, and test_descriptors.py requires that they are there.
SAMPLE = 3

within = pytest.mark.parametrize(
    "bound", sampled((bound for bound in bounds() if bound.pair.at is not None), every=SAMPLE), ids=lambda bound: bound.id
)
beyond = pytest.mark.parametrize(
    "bound", sampled((bound for bound in bounds() if bound.pair.beyond is not None), every=SAMPLE), ids=lambda bound: bound.id
)
beyond_in_json = pytest.mark.parametrize(
    "bound", sampled((bound for bound in bounds() if bound.pair.beyond is not None and bound.pair.in_json), every=SAMPLE), ids=lambda bound: bound.id
)


def test_there_are_bounds_of_every_kind() -> None:
    kinds = {bound.pair.what for bound in bounds()}
    assert kinds >= {"min_len", "max_len", "max", "items", "unique", "gte", "lte", "defined", "past", "future", "paths", "nul", "blank"}


@within
async def test_at_the_bound_a_request_is_accepted(bound: Bound, rest: httpx.AsyncClient, ways: Ways) -> None:
    """The first of the three calls may delete or use up data, so that the others fail. But no call is rejected for its content."""
    world, account = await make_world(rest, row_of(bound.rpc.name).message)
    message = bound.request(world, bound.pair.at)
    errors = {"rest": await rest_refusal(rest, transcoded(bound.rpc, message), account.headers), **await ways.by_grpc(bound.rpc, message, account)}
    for way, error in errors.items():
        assert error is None or (error.reason not in REFUSALS and error.code not in {2, 13}), f"{way}: {error}"


@beyond
async def test_beyond_the_bound_it_is_refused(bound: Bound, shared: tuple[World, Account], ways: Ways) -> None:
    world, account = shared
    for way, error in (await ways.by_grpc(bound.rpc, bound.request(world, bound.pair.beyond), account)).items():
        assert error is not None, f"accepted by {way}"
        assert (error.code, error.reason) == (INVALID_ARGUMENT, "INVALID_FIELD"), f"{way}: {error}"
        assert bound.pair.said in error.fields.get(bound.field, ""), f"{way}: {error}"


@beyond_in_json
async def test_beyond_the_bound_it_is_refused_over_rest(bound: Bound, shared: tuple[World, Account], rest: httpx.AsyncClient) -> None:
    """The service rejects the request with the same description, or the gateway rejects it."""
    world, account = shared
    error = await rest_refusal(rest, transcoded(bound.rpc, bound.request(world, bound.pair.beyond)), account.headers)
    assert error is not None, "accepted"
    if error.reason == "INVALID_FIELD":
        assert bound.pair.said in error.fields.get(bound.field, ""), error
    elif f"{{{'.'.join(bound.path)}}}" in bound.rpc.template:
        assert error.code in {INVALID_ARGUMENT, NOT_FOUND}, f"a malformed path must be invalid or not found: {error}"
    else:
        assert (error.code, error.reason) == (INVALID_ARGUMENT, "MALFORMED_REQUEST"), error
