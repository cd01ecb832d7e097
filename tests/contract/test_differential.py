"""REST and gRPC are two forms of the same API: generated calls have the same effect, answer, code, reason and fields both ways.

Each test has two accounts with the same data. It makes every call over REST with the first account and over gRPC with the second one, both through
the gateway, and compares what both got and what both have then.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import grpc.aio
import httpx
import pytest
from google.protobuf.message import Message

from tests.contract.differences import DIFFERENCES, Difference
from tests.contract.generated import Case, cases
from tests.contract.table import World, make_empty_world, make_world
from tests.support.accounts import Account
from tests.support.answers import Answer, by_grpc, by_rest
from tests.support.calls import as_dict, message_of, rpc_call
from tests.support.descriptors import named
from tests.support.errors import ApiError
from tests.support.tiers import SLOW

CASES: Final = 50
# 6 seeds make 300 cases in `make test`, all make 5300.
QUICK_SEEDS, SEEDS = 6, 106
# What two accounts never have in common.
UNLIKE: Final = (
    *("created_at", "updated_at", "completed_at", "deleted_at", "archived_at", "at", "last_used_at", "expires_at", "user_agent", "address"),
    *("access_token", "token", "hint", "secret", "message_id", "sent_at", "duration", "expires_in"),
)
# What the worker sets at times of its own.
LATER: Final = ("last_failure", "last_success_at")
TOKENS: Final = ("refresh_token", "next_page_token", "resume_token")
# The methods that return what an account has, with their requests.
EVERY_TASK: Final = {"page_size": 100, "show_deleted": True, "order_by": "created_at", "include_total_size": True}
EVERY_PROJECT: Final = {"page_size": 100, "show_archived": True, "show_deleted": True}
STATE: Final[Mapping[str, Mapping[str, Any]]] = {"GetMe": {}, "ListTasks": EVERY_TASK, "ListProjects": EVERY_PROJECT, "ListWebhooks": {}}
# The methods after which an account's password or one of its tokens is another one, or of no use.
ENDING: Final = ("RefreshToken", "Logout", "RevokeSession", "ChangePassword", "DeleteMe", "DeleteApiToken")
UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
FORGED: Final = "eyJhbGciOiJub25lIn0.e30."


@dataclass(slots=True)
class Twin:
    """One of the two accounts. `names` maps what only this account has to what both have in common."""

    world: World
    account: Account
    names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = {value: f"${name}" for name, value in asdict(self.world).items() if value != self.account.password}
        self.names[self.account.id] = "$user"

    def common(self, value: Any) -> Any:
        """Returns the value without what only this account has."""
        text = json.dumps(_without_unlike(value), ensure_ascii=False, sort_keys=True)
        for own in sorted(self.names, key=len, reverse=True):
            text = text.replace(own, self.names[own])
        return json.loads(UUID.sub(self._name, text))

    def _name(self, match: re.Match[str]) -> str:
        return self.names.setdefault(match[0], f"$id{len(self.names)}")


def _without_unlike(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_unlike(item) for item in value if not _is_sent_later(item)]
    if isinstance(value, dict):
        known = {name: inner for name, inner in value.items() if name not in LATER}
        return {name: bool(inner) if name in UNLIKE + TOKENS else _without_unlike(inner) for name, inner in known.items()}
    return value


def _is_sent_later(item: Any) -> bool:
    """Whether it is an attempt to send a change to a webhook, which the worker makes at a time of its own. A test is made at once."""
    return isinstance(item, dict) and "message_id" in item and item["type"] != "ping"


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=[] if seed < QUICK_SEEDS else [SLOW]) for seed in range(SEEDS)])
async def test_rest_and_grpc_agree(seed: int, rest: httpx.AsyncClient, gateway_channel: grpc.aio.Channel) -> None:
    of_account, of_tasks = _parted(cases(seed, CASES))
    await _agree(f"seed {seed}", of_tasks, make_world, rest, gateway_channel)
    await _agree(f"seed {seed}, of the account", of_account, make_empty_world, rest, gateway_channel)


def _parted(made: Sequence[Case]) -> tuple[list[Case], list[Case]]:
    """Returns the cases that can change an account, after which it needs a successor, and the others."""
    parts: tuple[list[Case], list[Case]] = [], []
    for case in made:
        parts[not (case.rpc.writes and case.rpc.program == "auth")].append(case)
    return parts


async def _agree(
    name: str,
    made: Sequence[Case],
    make: Callable[[httpx.AsyncClient], Awaitable[tuple[World, Account]]],
    rest: httpx.AsyncClient,
    channel: grpc.aio.Channel,
) -> None:
    twins = None
    for number, case in enumerate(made):
        if twins is None:
            twins = Twin(*await make(rest)), Twin(*await make(rest))
        one, other = twins
        requests = case.request(one.world), case.request(other.world)
        answers = await asyncio.gather(
            by_rest(rest, case.rpc, requests[0], _caller(case, one), case.headers), _by_grpc(channel, case, requests[1], _caller(case, other))
        )
        where = f"{name}, case {number}: {case}"
        if (difference := _difference(case, requests[0])) is not None:
            assert answers[0].status in difference.rest, f"{where}: not as documented ({difference.reason}): {answers[0]}"
            if answers[0].outcome != answers[1].outcome:
                if case.rpc.writes and None in (answers[0].error, answers[1].error):
                    # The write went through only once.
                    twins = None
                continue
        else:
            assert _seen(one, answers[0]) == _seen(other, answers[1]), where
        if case.rpc.writes and answers[0].error is None:
            if case.rpc.name.rpartition(".")[2] in ENDING:
                twins = None
                continue
            await _require_one_state(channel, twins, where)
    if twins is not None:
        # What a rejected call changed shows after the next call that is not rejected, or here.
        await _require_one_state(channel, twins, f"{name}, at the end")


async def _require_one_state(channel: grpc.aio.Channel, twins: tuple[Twin, Twin], where: str) -> None:
    states = await asyncio.gather(*(_state(channel, twin) for twin in twins))
    assert states[0] == states[1], f"{where}: another effect"


def _difference(case: Case, request: Message) -> Difference | None:
    return next((difference for difference in DIFFERENCES if difference.applies(case, request)), None)


def _caller(case: Case, twin: Twin) -> Account:
    return replace(twin.account, access_token=FORGED) if case.is_forged else twin.account


async def _by_grpc(channel: grpc.aio.Channel, case: Case, request: Message, account: Account) -> Answer:
    if not case.rpc.streams:
        return await by_grpc(channel, case.rpc, request, account, case.headers)
    first = await rpc_call(channel, case.rpc, request, [*account.metadata])
    return Answer(None, first, None) if isinstance(first, ApiError) else Answer(as_dict(first), None, None)


def _seen(twin: Twin, answer: Answer) -> Mapping[str, Any]:
    """Returns what a client sees, without what only this account has."""
    error = answer.error
    if error is None:
        return {"values": twin.common(answer.values), "replayed": answer.replayed}
    return {"code": error.code, "reason": error.reason, "fields": twin.common(error.fields), "metadata": twin.common(error.metadata)}


async def _state(channel: grpc.aio.Channel, twin: Twin) -> Any:
    """Returns everything of the account that calls can change."""
    calls = (by_grpc(channel, named(name), message_of(named(name), query), twin.account, {}) for name, query in STATE.items())
    return [_seen(twin, answer) for answer in await asyncio.gather(*calls)]
