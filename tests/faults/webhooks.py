"""Users who write, and their webhooks, whose receivers fail, hang or answer late. At the end what these got and the log must agree."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self
from uuid import UUID

import asyncpg
import httpx

from devstack.stack import Stack
from tests.faults.faults import Fault
from tests.support.accounts import Account, make_account
from tests.support.outage import WHOLE_WITHIN_SECONDS, require_whole
from tests.support.receivers import Receiver, listening
from tests.support.waiting import eventually

# The two seconds of the contract, plus what a loaded machine needs.
IN_TIME_SECONDS: Final = 2.0 + 0.3
PAUSE_SECONDS: Final = 0.06
# A failed attempt is repeated after this time instead of 5 s or more.
RETRY_SECONDS: Final = 0.25
REPEAT_NOW: Final = "UPDATE task.webhooks SET next_at = now() WHERE state = 1 AND next_at > now()"
CALMED_SECONDS: Final = 60.0
# The wait for requests that must not arrive.
SURPLUS_SECONDS: Final = 1.0
LOG: Final = "SELECT seq, task_id, version, extract(epoch FROM at)::float8 AS at FROM task.changes WHERE user_id = $1 ORDER BY seq"


@dataclass(frozen=True, slots=True)
class Change:
    """A row of the log, on the clock of time.time."""

    subject: tuple[str, str]
    at: float


@dataclass(slots=True)
class User:
    """A user who writes all the time."""

    account: Account
    chance: random.Random
    tasks: list[str] = field(default_factory=list)
    writes: int = 0

    async def write(self, rest: httpx.AsyncClient) -> None:
        """Creates, renames or deletes a task. What fails because a process is down is not repeated."""
        drawn = self.chance.random()
        verb, path = ("POST", "") if drawn < 0.3 or not self.tasks else ("PATCH", f"/{self.chance.choice(self.tasks)}")
        if verb == "PATCH" and drawn > 0.9:
            verb = "DELETE"
            self.tasks.remove(path[1:])
        body = None if verb == "DELETE" else {"title": f"{self.writes}"}
        with contextlib.suppress(httpx.TransportError):
            answer = await rest.request(verb, f"/api/v1/tasks{path}", json=body, headers=self.account.headers)
            self.writes += answer.is_success
            if verb == "POST" and answer.is_success:
                self.tasks.append(answer.json()["id"])


class Campaign:
    """Three users on a stack: one with an erratic and a healthy receiver, one with a healthy one, and one who pauses a webhook again and again.

    Inside its `async with` block all of them write.
    """

    def __init__(self, stack: Stack, seed: int) -> None:
        self._stack = stack
        self._seed = seed
        self._exits = contextlib.AsyncExitStack()
        self._working: list[asyncio.Task[None]] = []
        self._users: list[User] = []
        self.erratic = Receiver("/erratic", random.Random(f"{seed} erratic"))
        # It mostly has a request that it has not answered when a worker is killed.
        self.near, self.other = Receiver("/near", least_seconds=0.01), Receiver("/other", least_seconds=0.01)
        self.paused = Receiver("/paused", least_seconds=0.05)
        # When PostgreSQL was down, and when the last webhook was paused or deleted: from the answer to the call until the next call.
        self._outages: list[tuple[float, float]] = []
        self._pauses: list[tuple[float, float]] = []
        self._latest = ""

    async def __aenter__(self) -> Self:
        self._rest = await self._exits.enter_async_context(httpx.AsyncClient(base_url=self._stack.state.url, timeout=10))
        url = await self._exits.enter_async_context(listening(self.erratic, self.near, self.other, self.paused))
        self._users = [User(await make_account(self._rest), random.Random(f"{self._seed} {number}")) for number in range(3)]
        first, second, third = self._users
        for user, receiver in ((first, self.erratic), (first, self.near), (second, self.other), (third, self.paused)):
            created = await self._rest.post("/api/v1/webhooks", json={"url": url + receiver.path}, headers=user.account.headers)
            assert created.is_success, created.text
            receiver.secret = created.json()["secret"]
        self._path, self._pauser = f"/api/v1/webhooks/{created.json()['webhook']['id']}", third.account
        self._working = [asyncio.create_task(work) for work in (*map(self._write, self._users), self._repeat_soon(), self._pause_and_go_on())]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop(self._working)
        await self._exits.aclose()

    async def strike(self, fault: Fault) -> None:
        """Causes a fault of the stack and remembers when it was over."""
        await asyncio.sleep(fault.after_seconds)
        began = time.time()
        await Fault(fault.process, fault.way, 0, fault.seconds).strike(self._stack)
        if fault.process == "postgres":
            self._outages.append((began, time.time()))

    async def contradictions(self) -> list[str]:
        """Ends the writes, waits until all is sent, and returns the contradictions. All processes must be up again."""
        *writing, repeating, pausing = self._working
        await self._stop([*writing, pausing])
        self.erratic.chance = None
        deleted = await self._until_done("DELETE", None)
        database = await asyncpg.connect(self._stack.state.database_url)
        try:
            logs = [await _log(database, user) for user in self._users]
            for log, receiver in ((logs[0], self.erratic), (logs[0], self.near), (logs[1], self.other)):
                await _require_all(receiver, log)
            await asyncio.sleep(SURPLUS_SECONDS)
        finally:
            await database.close()
        self._pauses.append((deleted, time.time()))
        await self._stop([repeating])
        return [
            *(text for receiver in (self.erratic, self.near) for text in _out_of_order(receiver, logs[0])),
            *_out_of_order(self.other, logs[1]),
            *_out_of_order(self.paused, logs[2]),
            *(text for receiver, log in ((self.near, logs[0]), (self.other, logs[1])) for text in self._late(receiver, log)),
            *(f"while paused: {number} requests" for number in map(self._sent_meanwhile, self._pauses) if number > 1),
        ]

    def report(self) -> str:
        """Summarizes the campaign as text."""
        requests = ", ".join(f"{each.path} {len(each.got)}" for each in (self.erratic, self.near, self.other, self.paused))
        return f"{sum(user.writes for user in self._users)} writes were answered; requests: {requests}; {len(self._pauses)} pauses; {self._latest}\n"

    async def _write(self, user: User) -> None:
        while True:
            await user.write(self._rest)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _repeat_soon(self) -> None:
        while True:
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                async with asyncio.timeout(5):
                    database = await asyncpg.connect(self._stack.state.database_url)
                    try:
                        while True:
                            await database.execute(REPEAT_NOW)
                            await asyncio.sleep(RETRY_SECONDS)
                    finally:
                        database.terminate()
            await asyncio.sleep(RETRY_SECONDS)

    async def _pause_and_go_on(self) -> None:
        chance = random.Random(f"{self._seed} pauses")
        while True:
            await asyncio.sleep(chance.uniform(0.3, 1.5))
            paused = await self._until_done("PATCH", "PAUSED")
            await asyncio.sleep(chance.uniform(0.3, 1.5))
            self._pauses.append((paused, time.time()))
            await self._until_done("PATCH", "ACTIVE")

    async def _until_done(self, verb: str, state: str | None) -> float:
        """Repeats a call of the webhook that is paused until it succeeds. Returns when."""

        async def done() -> float:
            answer = await self._rest.request(verb, self._path, json=state and {"state": state}, headers=self._pauser.headers)
            assert answer.is_success, answer.text
            return time.time()

        return await eventually(done, within=CALMED_SECONDS)

    async def _stop(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    def _late(self, receiver: Receiver, log: Sequence[Change]) -> Iterator[str]:
        first: dict[tuple[str, str], float] = {}
        for arrival in receiver.got:
            first.setdefault(arrival.subject, arrival.at)
        late = sorted(first[change.subject] - change.at - self._away(change.at, first[change.subject]) for change in log)
        self._latest += f" {receiver.path} after {late[len(late) // 2]:.2f} s (median), {late[-1]:.2f} s (at most)"
        if late[-1] > IN_TIME_SECONDS:
            yield f"{receiver.path}: a change was sent {late[-1]:.2f} s late"

    def _away(self, began: float, ended: float) -> float:
        """Returns for how long PostgreSQL was down within a span."""
        return sum(max(min(ended, back) - max(began, away), 0) for away, back in self._outages)

    def _sent_meanwhile(self, span: tuple[float, float]) -> int:
        return sum(span[0] < arrival.at < span[1] for arrival in self.paused.got)


async def _log(database: Any, user: User) -> list[Change]:
    rows = await database.fetch(LOG, UUID(user.account.id))
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1)), "the log has a gap"
    return [Change((str(row["task_id"]), f'"{row["version"]}"'), row["at"]) for row in rows]


async def _require_all(receiver: Receiver, log: Sequence[Change]) -> None:
    async def accepted() -> None:
        assert {change.subject for change in log} <= {each.subject for each in receiver.got if each.accepted_at is not None}, receiver.path

    await eventually(accepted, within=CALMED_SECONDS)


def _out_of_order(receiver: Receiver, log: Sequence[Change]) -> Iterator[str]:
    """Yields where a receiver got another change than the one that follows those that it had accepted, or the last of these again."""
    places = {change.subject: place for place, change in enumerate(log)}
    accepted = sorted((each.accepted_at, places.get(each.subject, -1)) for each in receiver.got if each.accepted_at is not None)
    if receiver.forged:
        yield f"{receiver.path}: {receiver.forged} requests without a valid signature"
    last, counted = -1, 0
    ids: dict[int, str] = {}
    for arrival in receiver.got:
        while counted < len(accepted) and accepted[counted][0] <= arrival.at:
            last, counted = max(last, accepted[counted][1]), counted + 1
        place = places.get(arrival.subject, -1)
        if place not in {last, last + 1} or place < 0:
            yield f"{receiver.path}: change {place} of the log arrived when {last} was the last one"
        if ids.setdefault(place, arrival.message_id) != arrival.message_id:
            yield f"{receiver.path}: change {place} of the log has two ids"
    if len(set(ids.values())) != len(ids):
        yield f"{receiver.path}: two changes have one id"


async def webhooks_campaign(stack: Stack, seed: int, rounds: Iterator[Fault], seconds: float, say: Callable[[str], object]) -> list[str]:
    """Writes while faults occur one after the other, for at least so long. Returns the contradictions."""
    async with Campaign(stack, seed) as campaign:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            fault = next(rounds)
            await campaign.strike(fault)
            over = time.monotonic()
            await eventually(lambda: require_whole(stack), within=WHOLE_WITHIN_SECONDS)
            say(f"{fault}; all ready again after {time.monotonic() - over:.2f} s\n")
        found = await campaign.contradictions()
        say(campaign.report())
        return found
