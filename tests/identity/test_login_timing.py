"""The duration of a rejected login does not reveal whether the account exists. Calls go directly to auth_service, one at a time, in random order.

A hash takes a sixteenth of the default time, so it hides the other work of a login less. (That work, the lookup of a network from which the account
has logged in, takes about 20 microseconds.)
"""

import itertools
import math
import random
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from uuid import uuid4

import asyncpg
import bcrypt
import grpc.aio
import pytest
from google.protobuf.message import Message

from auth_service.passwords.hasher import SCHEME, _prehash
from devstack.config import HOST, StackConfig
from devstack.stack import Stack
from tests.conftest import ENVIRONMENT
from tests.support.accounts import PASSWORD
from tests.support.calls import message_of, rpc_call
from tests.support.descriptors import named
from tests.support.errors import ApiError

ALONE = pytest.mark.alone("compares times of logins, which needs the machine for itself")

COST, OUTDATED_COST, LEAKING_COST = 8, 4, 9
SAMPLES, FEWER_SAMPLES = 200, 40
# In standard deviations. By chance one run in 16 000 exceeds it.
BOUND = 4.0
# As a share of a login's duration. Without compensation a hash of the outdated cost would take a sixteenth of the time.
EQUALISED = 0.2
LOGIN, REGISTER = named("AuthService.Login"), named("AuthService.Register")
WRONG = "wrong horse battery"

# Written directly to the database, because so many registrations and logins would take longer than the measurement.
MAKE = """
    INSERT INTO auth.users (id, email, email_key, name, password_hash)
    SELECT gen_random_uuid(), email, email, 'Ada', $2 FROM unnest($1::text[]) AS email
"""
# From the network of the user with the email $2.
LOG_IN = """
    INSERT INTO auth.login_networks (user_id, network, last_login_at)
    SELECT u.id, a.network, a.last_login_at
      FROM auth.users AS u, auth.login_networks AS a JOIN auth.users AS here ON here.id = a.user_id
     WHERE u.email = ANY ($1) AND here.email = $2
"""


@dataclass(frozen=True, slots=True)
class Known:
    """Emails of accounts, one for each sample, so that no login limit applies. Half of each kind have logged in from this network."""

    channel: grpc.aio.Channel
    usual: Sequence[str]
    outdated: Sequence[str]
    leaking: Sequence[str]


@pytest.fixture(scope="module")
async def known() -> AsyncIterator[Known]:
    """The outdated accounts have hashes of a lower cost, the leaking accounts of a higher cost, for which the service cannot compensate."""
    async with Stack(StackConfig(environment={**ENVIRONMENT, "BCRYPT_COST": str(COST)})) as stack, _channel(stack) as channel:
        emails = [_unknown() for _ in range(SAMPLES + 2 * FEWER_SAMPLES)]
        await _logged_in(channel, here := _unknown())
        connection = await asyncpg.connect(stack.state.database_url)
        try:
            hashes = [_hash(cost) for cost in (COST, OUTDATED_COST, LEAKING_COST)]
            bounds = (0, SAMPLES, SAMPLES + FEWER_SAMPLES, None)
            for password_hash, start, end in zip(hashes, bounds, bounds[1:], strict=False):
                await connection.execute(MAKE, emails[start:end], password_hash)
            await connection.execute(LOG_IN, emails[::2], here)
        finally:
            await connection.close()
        yield Known(channel, *(emails[start:end] for start, end in itertools.pairwise(bounds)))


@ALONE
async def test_a_refused_login_takes_as_long_for_an_account_as_for_none(known: Known) -> None:
    times = await _measured(known.channel, known.usual)
    assert abs(z_score(*times)) < BOUND, _told(times)


@ALONE
async def test_a_hash_of_a_lower_cost_takes_nearly_as_long(known: Known) -> None:
    """Only nearly: the service compensates with several hashes, and their start and end take a few hundred microseconds in total."""
    times = await _measured(known.channel, known.outdated)
    outdated, none = (statistics.median(side) for side in times)
    assert abs(outdated - none) < EQUALISED * none, _told(times)


@ALONE
async def test_a_hash_that_takes_longer_would_be_noticed(known: Known) -> None:
    times = await _measured(known.channel, known.leaking)
    assert z_score(*times) > BOUND, _told(times)


def test_the_statistic_notices_a_shift_and_nothing_else() -> None:
    """Uses times that scatter like real ones: by a tenth, and 2 % of them by a factor of three."""
    # A fixed seed makes the test deterministic.
    source = random.Random(1)
    times = [source.lognormvariate(math.log(4), 0.1) * (3 if source.random() < 0.02 else 1) for _ in range(2 * SAMPLES)]
    one, other = times[:SAMPLES], times[SAMPLES:]
    assert abs(z_score(one, other)) < BOUND
    assert z_score([time * 1.15 for time in one], other) > BOUND
    assert z_score(one, [time * 1.15 for time in other]) < -BOUND


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        # Calculated by hand: U = 9, its mean 4.5, its variance 9 * 7 / 12.
        ([4, 5, 6], [1, 2, 3], 4.5 / math.sqrt(5.25)),
        ([1, 2, 3], [4, 5, 6], -4.5 / math.sqrt(5.25)),
        ([1, 4], [2, 3], 0.0),
        # Equal values share their ranks.
        ([1, 1], [1, 1], 0.0),
    ],
)
def test_the_statistic_is_that_of_mann_and_whitney(one: list[float], other: list[float], expected: float) -> None:
    assert z_score(one, other) == pytest.approx(expected)


def z_score(one: Sequence[float], other: Sequence[float]) -> float:
    """Returns Mann-Whitney U in standard deviations from its mean (normal approximation). It is positive if the values of `one` are greater."""
    ranks: dict[float, list[int]] = {}
    for rank, value in enumerate(sorted([*one, *other]), 1):
        ranks.setdefault(value, []).append(rank)
    n, m = len(one), len(other)
    u = sum(sum(ranks[value]) / len(ranks[value]) for value in one) - n * (n + 1) / 2
    return (u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12)


async def _measured(channel: grpc.aio.Channel, known: Sequence[str]) -> tuple[list[float], list[float]]:
    """Returns the durations of rejected logins in milliseconds: with these accounts, and with as many emails without an account."""
    times: tuple[list[float], list[float]] = ([], [])
    order = [(email, times[0]) for email in known] + [(_unknown(), times[1]) for _ in known]
    random.shuffle(order)
    # Warm-up calls, so that slow first calls (connection setup, an idle processor) affect neither side.
    for email in (_unknown() for _ in range(20)):
        await _refused(channel, email)
    for email, kept in order:
        kept.append(await _refused(channel, email))
    return times


async def _refused(channel: grpc.aio.Channel, email: str) -> float:
    request = _credentials(email, WRONG)
    began = time.perf_counter()
    answer = await rpc_call(channel, LOGIN, request)
    took = time.perf_counter() - began
    assert isinstance(answer, ApiError)
    assert answer.reason == "INVALID_CREDENTIALS"
    return took * 1000


def _channel(stack: Stack) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"{HOST}:{stack.state.processes['auth-1'].grpc_port}")


def _hash(cost: int) -> str:
    return SCHEME + bcrypt.hashpw(_prehash(PASSWORD), bcrypt.gensalt(cost)).decode()


async def _logged_in(channel: grpc.aio.Channel, email: str) -> None:
    for rpc, request in (
        (REGISTER, message_of(REGISTER, {"email": email, "password": PASSWORD, "name": "Ada"})),
        (LOGIN, _credentials(email, PASSWORD)),
    ):
        assert not isinstance(await rpc_call(channel, rpc, request), ApiError)


def _credentials(email: str, password: str) -> Message:
    return message_of(LOGIN, {"email": email, "password": password})


def _unknown() -> str:
    return f"{uuid4().hex}@example.com"


def _told(times: tuple[Sequence[float], Sequence[float]]) -> str:
    medians = [statistics.median(side) for side in times]
    return f"z = {z_score(*times):.1f}; medians {medians[0]:.2f} ms for accounts, {medians[1]:.2f} ms for none"
