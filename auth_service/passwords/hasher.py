"""Hashes passwords with bcrypt, in a few threads with a bounded queue: bcrypt releases the GIL, and the event loop never waits for it.

Each password is first put through HMAC-SHA-256 under a fixed label, so that bcrypt's 72 bytes truncate nothing; the label keeps hashes leaked
elsewhere (bare SHA-256) from being tried against ours. A hash carries its scheme and its cost, so that it can be told from a newer one.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import bcrypt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from auth_service.passwords.rules import normalize
from servicekit import deadline
from servicekit.errors import Overloaded

T = TypeVar("T")

LABEL: Final = b"task-manager password v1"
# Before the bcrypt hash, so that a later scheme can be told from this one.
SCHEME: Final = "hmac-sha256-bcrypt:"
# Hashing takes what others leave of the machine: a burst of logins must not slow down the calls beside it. (0 is normal, 19 the least.)
NICENESS: Final = 10
# The part that each new time has in what a hash is thought to take.
SMOOTHING: Final = 0.2


class PasswordHasher:
    """`threads` hash at once, `queue` wait; whoever comes beyond that is told to come back, rather than to wait for a timeout.

    So is who would wait in the queue for longer than the call has left: a machine with much to do hashes more slowly.
    """

    def __init__(self, *, cost: int, threads: int, queue: int, registry: CollectorRegistry) -> None:
        self._cost = cost
        self._at_once = threads
        self._bound = threads + queue
        self._under_way = 0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="bcrypt", initializer=_step_back)
        # What the password of an unknown user is compared with: the same work, and never equal.
        began = time.perf_counter()
        self._nobody = _hash("", cost)
        self._each_seconds = time.perf_counter() - began
        self._seconds = Histogram("password_hash_seconds", "Time of a password hash, with its wait in the queue.", registry=registry)
        Gauge("password_hashes_under_way", "Password hashes computed or waiting.", registry=registry).set_function(lambda: self._under_way)
        Gauge("password_hashes_limit", "Password hashes that may be computed or waiting.", registry=registry).set(self._bound)
        self._refused = Counter("password_hashes_refused_total", "Password hashes refused, since too many were waiting.", registry=registry)

    async def start(self) -> None:
        """Nothing to do: threads start as they are needed."""

    async def close(self) -> None:
        """Takes no more work."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """The hash to keep. Raises Overloaded."""
        return await self._run(lambda: _hash(password, self._cost))

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Whether the password is that of the hash; with None, False after the same time. Raises Overloaded."""
        matches = await self._run(lambda: _verify(password, password_hash or self._nobody, self._cost))
        return matches and password_hash is not None

    def is_outdated(self, password_hash: str) -> bool:
        """Whether the hash is of another scheme, or of a lower cost, than is asked for by now."""
        return not password_hash.startswith(SCHEME) or _cost(password_hash) < self._cost

    async def _run(self, work: Callable[[], T]) -> T:
        if self._under_way >= self._bound or self._comes_too_late():
            self._refused.inc()
            raise Overloaded
        self._under_way += 1
        future = self._threads.submit(self._timed, work)
        # Counted until the thread is free, not until the caller has left.
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._done))
        with self._seconds.time():
            return await asyncio.wrap_future(future)

    def _comes_too_late(self) -> bool:
        """Whether one more would have to wait, and would then be done after the call's deadline."""
        if self._under_way < self._at_once:
            return False
        seconds = (self._under_way // self._at_once + 1) * self._each_seconds
        return deadline.bound(seconds) < seconds

    def _timed(self, work: Callable[[], T]) -> T:
        began = time.perf_counter()
        try:
            return work()
        finally:
            self._each_seconds += SMOOTHING * (time.perf_counter() - began - self._each_seconds)

    def _done(self) -> None:
        self._under_way -= 1


def _step_back() -> None:
    """Linux has a priority for each thread; where it is the whole process that would be slowed, it stays as it is."""
    if os.uname().sysname == "Linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def _prehash(password: str) -> bytes:
    return base64.b64encode(hmac.digest(LABEL, normalize(password).encode(), hashlib.sha256))


def _hash(password: str, cost: int) -> str:
    return SCHEME + bcrypt.hashpw(_prehash(password), bcrypt.gensalt(cost)).decode()


def _verify(password: str, password_hash: str, cost: int) -> bool:
    prehash, kept = _prehash(password), password_hash.removeprefix(SCHEME).encode()
    if bcrypt.checkpw(prehash, kept):
        return True
    # A hash from when the cost was lower fails sooner, which would tell that there is such an account: 2^c + 2^c + 2^(c+1) + … + 2^(cost-1) = 2^cost.
    for lower in range(_cost(password_hash), cost):
        bcrypt.hashpw(prehash, bcrypt.gensalt(lower))
    return False


def _cost(password_hash: str) -> int:
    """The cost in a bcrypt hash: `$2b$12$…`."""
    return int(password_hash.removeprefix(SCHEME).split("$")[2])
