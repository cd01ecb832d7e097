"""Sends the changes of users to their webhooks: the work of `python -m task_service work`, in any number of processes.

Contract: a webhook gets each change at least once, in the order of the log, one at a time. A process takes a webhook under a lease, which it extends
while a request runs; if it dies, another one takes the webhook when the lease ends and sends the change in flight again. What was sent is recorded
after each request, and the record says whether to go on. So a webhook that was deleted or paused gets at most the request that had begun.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol
from uuid import UUID, uuid4

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from servicekit.access.seal import NotOpened
from servicekit.errors import ServiceError
from task_service.webhooks.domain import PING, Answer, Attempt, Key, Result, Settlement, Taken, Told, WaitingTest
from task_service.webhooks.signing import WebhookSeal, signature

INTERVAL_SECONDS: Final = 0.25
# A killed process delays the webhooks that it was sending to by so much. A lease that a slow receiver outlives is extended for longer.
LEASE_SECONDS: Final = 1.5
EXTENDED_SECONDS: Final = 3.0
RENEWAL_SECONDS: Final = 0.5
# Sends nothing under a lease that ends sooner.
LEAST_LEASE_SECONDS: Final = 0.5
TIMEOUT_SECONDS: Final = 15.0
TEST_TIMEOUT_SECONDS: Final = 5.0
FIRST_RETRY_SECONDS: Final = 5.0
LONGEST_RETRY_SECONDS: Final = 3600.0
JITTER: Final = 0.25
# How many webhooks a process serves at once, and how many of them those whose last attempt has failed, which may hang again.
AT_ONCE: Final = 500
FAILING_AT_ONCE: Final = 250
CHANGES_AT_ONCE: Final = 100
MAX_BYTES: Final = 256 * 1024
# After SIGTERM. What runs longer is cut off, and sent again by another process.
CLOSE_SECONDS: Final = 2.0
GONE: Final = 410
LAG_BUCKETS: Final = (0.1, 0.25, 0.5, 1, 2, 5, 10, 60, 600, 3600, 86_400)
DURATION_BUCKETS: Final = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 15)
UNSEALED: Final = Answer(0, "The server cannot decrypt the secret. Its operator must restore the key, or the secret must be rotated.")

log = structlog.get_logger()

# URL, headers, body, seconds: see Poster.post.
Post = Callable[[str, Mapping[str, str], bytes, float], Awaitable[Answer]]


class LeaseStore(Protocol):
    """Says what is to send, and records what was sent. All methods raise DependencyUnavailable."""

    async def list_due(self, limit: int) -> Sequence[tuple[Key, int]]:
        """Returns webhooks with something to tell that nobody tells just now, and how many attempts have failed. Failing ones come last."""

    async def take(self, key: Key, lease: UUID, seconds: float, limit: int, max_bytes: int) -> Taken | None:
        """Takes the webhook under the lease, for `seconds`, with its next changes. Returns None if it is not due any more, or another lease holds."""

    async def settle(self, key: Key, lease: UUID, seconds: float, settlement: Settlement) -> bool | None:
        """Records what the lease has done. Returns whether it may go on: the lease holds, for `seconds`, and the webhook is as it was.

        Returns None if it may not because the attempt has disabled the webhook.
        """

    async def renew(self, leases: Mapping[Key, UUID], seconds: float) -> Collection[Key]:
        """Extends leases. Returns those that still hold."""

    async def list_tests(self, limit: int) -> Sequence[tuple[Key, UUID]]:
        """Returns tests that wait for a process."""

    async def take_test(self, key: Key, test_id: UUID) -> WaitingTest | None:
        """Takes a test. Returns None if another process has it, or the webhook is deleted."""

    async def settle_test(self, key: Key, attempt: Attempt) -> None:
        """Records what came of a test."""


@dataclass(slots=True)
class _Held:
    """A lease of this process. `until` is on the clock of time.monotonic, and less than what the database says."""

    lease: UUID
    until: float = 0.0


class Sender:
    """A Resource. `round` starts what is due, and does not wait for it."""

    def __init__(
        self,
        store: LeaseStore,
        post: Post,
        seal: WebhookSeal,
        bodies: tuple[Callable[[Told], bytes], Callable[[str, datetime], bytes]],
        new_id: Callable[[], UUID],
        registry: CollectorRegistry,
    ) -> None:
        """`bodies` make the body that tells of a change, and that of a test."""
        self._store = store
        self._post = post
        self._seal = seal
        self._body_of_change, self._body_of_test = bodies
        self._new_id = new_id
        self._held: dict[Key, _Held] = {}
        self._failing: set[Key] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._due = Gauge("webhooks_due", "Webhooks with changes to send that nobody sends, at the last look of this process.", registry=registry)
        Gauge("webhooks_held", "Webhooks that this process sends to.", registry=registry).set_function(lambda: len(self._held))
        self._attempts = Counter("webhook_attempts_total", "Attempts to send a change, by outcome.", ["outcome"], registry=registry)
        self._seconds = Histogram("webhook_attempt_seconds", "Duration of attempts to send a change.", buckets=DURATION_BUCKETS, registry=registry)
        self._lag = Histogram(
            "webhook_lag_seconds",
            "Time from a change to the first attempt to send it, to webhooks that had been told of everything before.",
            buckets=LAG_BUCKETS,
            registry=registry,
        )
        self._disabled = Counter("webhooks_disabled_total", "Webhooks that a failed attempt has disabled.", registry=registry)
        for outcome in ("succeeded", "failed"):
            self._attempts.labels(outcome)

    async def start(self) -> None:
        """Does nothing: `round` does."""

    async def close(self) -> None:
        """Starts nothing more, waits for what runs, and cuts off what runs too long."""
        self._stopping = True
        if self._running:
            await asyncio.wait(self._running, timeout=CLOSE_SECONDS)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def round(self) -> None:
        """Starts what is due; runs every INTERVAL_SECONDS. Raises DependencyUnavailable."""
        if self._stopping:
            return
        for key, test_id in await self._store.list_tests(AT_ONCE):
            self._start(self._test(key, test_id))
        due = [(key, failures) for key, failures in await self._store.list_due(AT_ONCE) if key not in self._held]
        self._due.set(len(due))
        # Two processes that begin at different ends meet once. Failing webhooks stay behind the others.
        random.shuffle(due)
        for key, failures in sorted(due, key=lambda each: each[1] > 0):
            if len(self._held) < AT_ONCE and (not failures or len(self._failing) < FAILING_AT_ONCE):
                self._held[key] = _Held(uuid4())
                if failures:
                    self._failing.add(key)
                self._start(self._serve(key))

    async def renew(self) -> None:
        """Extends the leases that end soon; runs every RENEWAL_SECONDS. Raises DependencyUnavailable."""
        began = time.monotonic()
        leases = {key: held.lease for key, held in self._held.items() if held.until and held.until < began + 2 * RENEWAL_SECONDS}
        if not leases:
            return
        for key in await self._store.renew(leases, EXTENDED_SECONDS):
            if (held := self._held.get(key)) is not None and held.lease == leases[key]:
                held.until = began + EXTENDED_SECONDS

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _serve(self, key: Key) -> None:
        held = self._held[key]
        try:
            while not self._stopping and await self._tell_next(key, held):
                pass
        except ServiceError as error:
            # The lease ends by itself, and whoever takes the webhook then sends what is not recorded.
            log.info("webhook_left", webhook_id=str(key.id), error=type(error).__name__)
        except Exception:
            log.exception("webhook_failed", webhook_id=str(key.id))
        finally:
            self._held.pop(key, None)
            self._failing.discard(key)

    async def _tell_next(self, key: Key, held: _Held) -> bool:
        """Tells the next changes. Returns whether there may be more, and the lease holds."""
        began = time.monotonic()
        taken = await self._store.take(key, held.lease, LEASE_SECONDS, CHANGES_AT_ONCE, MAX_BYTES)
        if taken is None:
            return False
        held.until = began + LEASE_SECONDS
        wanted = [told for told in taken.changes if taken.wants(told)]
        last = taken.changes[-1].seq
        is_all = last >= taken.last_seq
        if not wanted:
            return await self._settle(key, held, Settlement(taken.version, last, release=is_all))
        if not taken.failures:
            self._lag.observe(max((datetime.now(UTC) - wanted[0].at).total_seconds(), 0.0))
        # With each change, those behind it that the webhook does not want.
        ends = [*(told.seq - 1 for told in wanted[1:]), last]
        for told, end in zip(wanted, ends, strict=True):
            if self._stopping or held.until - time.monotonic() < LEAST_LEASE_SECONDS:
                # What was told before is recorded already.
                await self._settle(key, held, Settlement(taken.version, 0, release=True))
                return False
            # Only the first one has failed before.
            failures = taken.failures if told is wanted[0] else 0
            attempt = await self._attempt(key, taken, told, failures + 1)
            result = _result(attempt.answer)
            settlement = Settlement(taken.version, end, result, attempt, retry_seconds(failures), release=is_all and end == last)
            if not await self._settle(key, held, settlement):
                return False
        return True

    async def _settle(self, key: Key, held: _Held, settlement: Settlement) -> bool:
        began = time.monotonic()
        holds = await self._store.settle(key, held.lease, LEASE_SECONDS, settlement)
        if holds is None:
            self._disabled.inc()
            log.info("webhook_disabled", webhook_id=str(key.id))
        held.until = began + LEASE_SECONDS if holds else 0.0
        return bool(holds)

    async def _attempt(self, key: Key, taken: Taken, told: Told, number: int) -> Attempt:
        body = self._body_of_change(told)
        attempt = await self._send(key, taken.url, taken.secrets, (told.message_id(key.id), told.type, number), body, TIMEOUT_SECONDS)
        self._attempts.labels("succeeded" if attempt.answer.succeeded else "failed").inc()
        self._seconds.observe(attempt.duration_ms / 1000)
        return attempt

    async def _send(
        self,
        key: Key,
        url: str,
        sealed: Sequence[bytes],
        what: tuple[str, str, int],
        body: bytes,
        timeout_seconds: float,
        id: UUID | None = None,  # noqa: A002 - what it is
    ) -> Attempt:
        message_id, kind, number = what
        sent_at, began = datetime.now(UTC), time.monotonic()
        timestamp = int(sent_at.timestamp())
        try:
            secrets = [self._seal.open(each, key.id) for each in sealed]
        except NotOpened:
            log.warning("webhook_secret_not_opened", webhook_id=str(key.id))
            answer = UNSEALED
        else:
            signed = signature(secrets, message_id, timestamp, body)
            headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": signed}
            answer = await self._post(url, headers, body, timeout_seconds)
        milliseconds = round((time.monotonic() - began) * 1000)
        return Attempt(id or self._new_id(), message_id, kind, number, sent_at, milliseconds, answer)

    async def _test(self, key: Key, test_id: UUID) -> None:
        try:
            test = await self._store.take_test(key, test_id)
            if test is not None:
                body = self._body_of_test(PING, test.at)
                attempt = await self._send(key, test.url, test.secrets, (test.message_id, PING, 1), body, TEST_TIMEOUT_SECONDS, test_id)
                await self._store.settle_test(key, attempt)
        except ServiceError as error:
            log.info("webhook_test_left", webhook_id=str(key.id), error=type(error).__name__)
        except Exception:
            log.exception("webhook_test_failed", webhook_id=str(key.id))


def retry_seconds(failures: int) -> float:
    """Returns when to try again after an attempt that has failed, and `failures` before it: 5 s, doubling to an hour, and up to a quarter more."""
    # Not more doublings than lead to the hour.
    seconds = min(FIRST_RETRY_SECONDS * 2.0 ** min(failures, 10), LONGEST_RETRY_SECONDS)
    return seconds * random.uniform(1, 1 + JITTER)  # noqa: S311 - spreads attempts and hides nothing


def _result(answer: Answer) -> Result:
    if answer.succeeded:
        return Result.SUCCEEDED
    return Result.GONE if answer.status == GONE else Result.FAILED
