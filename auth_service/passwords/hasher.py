"""Hashes passwords with bcrypt in a few threads with a bounded queue. bcrypt releases the GIL, so it never blocks the event loop.

Each password first goes through HMAC-SHA-256 with a fixed label, so that bcrypt's limit of 72 bytes truncates nothing. Because of the label, an
attacker cannot try SHA-256 hashes that leaked elsewhere against these hashes. A hash names its scheme and its cost, so that outdated hashes can be
recognized.
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

from auth_service.passwords.domain import normalize
from auth_service.passwords.errors import TooManyHashes
from servicekit import deadline

T = TypeVar("T")

LABEL: Final = b"task-manager password v1"
# The prefix of each bcrypt hash, which distinguishes this scheme from a later one.
SCHEME: Final = "hmac-sha256-bcrypt:"
# Hashing threads have a lower priority, because a burst of logins must not slow down other calls. (0 is normal, 19 the lowest.)
NICENESS: Final = 10
# The weight of a new measurement in the moving average of the time per hash.
SMOOTHING: Final = 0.2


class PasswordHasher:
    """Runs at most `threads` hashes at once and lets at most `queue` wait. Rejects further ones with TooManyHashes instead of letting them time out.

    It also rejects a hash that would have to wait and would finish after the call's deadline: a busy machine hashes more slowly.
    """

    def __init__(self, *, cost: int, threads: int, queue: int, registry: CollectorRegistry) -> None:
        self._cost = cost
        self._at_once = threads
        self._bound = threads + queue
        self._under_way = 0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="bcrypt", initializer=_step_back)
        # The hash for the passwords of unknown users: `verify` does the same work with it and returns False in any case.
        began = time.perf_counter()
        self._nobody = _hash("", cost)
        self._each_seconds = time.perf_counter() - began
        self._seconds = Histogram("password_hash_seconds", "Seconds per password hash, including the wait in the queue.", registry=registry)
        Gauge("password_hashes_under_way", "Password hashes that run or wait.", registry=registry).set_function(lambda: self._under_way)
        Gauge("password_hashes_limit", "Maximum of password hashes that run or wait.", registry=registry).set(self._bound)
        self._refused = Counter("password_hashes_refused_total", "Password hashes rejected: queue full, or deadline too close.", registry=registry)

    async def start(self) -> None:
        """Does nothing: threads start when they are needed."""

    async def close(self) -> None:
        """Cancels the waiting hashes and accepts no more. Does not wait for the running ones."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """Returns the hash to store. Raises TooManyHashes."""
        return await self._run(lambda: _hash(password, self._cost))

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Returns whether the password matches the hash. For None it returns False after the same time. Raises TooManyHashes."""
        matches = await self._run(lambda: _verify(password, password_hash or self._nobody, self._cost))
        return matches and password_hash is not None

    def is_outdated(self, password_hash: str) -> bool:
        """Returns whether the hash has another scheme, or a lower cost, than new hashes have."""
        return not password_hash.startswith(SCHEME) or _cost(password_hash) < self._cost

    async def _run(self, work: Callable[[], T]) -> T:
        if self._under_way >= self._bound or self._comes_too_late():
            self._refused.inc()
            raise TooManyHashes
        self._under_way += 1
        future = self._threads.submit(self._timed, work)
        # The hash counts until its thread is free, even if its caller disconnects before.
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._done))
        with self._seconds.time():
            return await asyncio.wrap_future(future)

    def _comes_too_late(self) -> bool:
        """Returns whether another hash would have to wait and would finish after the call's deadline."""
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
    """Lowers the thread's priority on Linux. Does nothing on other systems, where this would lower the priority of the whole process."""
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
    # A hash with a lower cost fails faster, which would reveal that the account exists. So the loop adds the missing work:
    # 2^c + 2^c + 2^(c+1) + … + 2^(cost-1) = 2^cost.
    for lower in range(_cost(password_hash), cost):
        bcrypt.hashpw(prehash, bcrypt.gensalt(lower))
    return False


def _cost(password_hash: str) -> int:
    """Returns the cost in a bcrypt hash, 12 in `$2b$12$…`."""
    return int(password_hash.removeprefix(SCHEME).split("$")[2])
