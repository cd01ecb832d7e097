"""Hashes passwords with bcrypt, in a few threads with a bounded queue: bcrypt releases the GIL, and the event loop never waits for it.

Each password is first put through HMAC-SHA-256 under a fixed label, so that bcrypt's 72 bytes truncate nothing; the label keeps hashes leaked
elsewhere (bare SHA-256) from being tried against ours.
"""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import bcrypt
from prometheus_client import CollectorRegistry, Gauge, Histogram

from auth_service.domain import normalize_password
from servicekit.errors import Overloaded

T = TypeVar("T")

LABEL: Final = b"task-manager password v1"
# Before the bcrypt hash, so that a later scheme can be told from this one.
SCHEME: Final = "hmac-sha256-bcrypt:"


class PasswordHasher:
    """`threads` hash at once, `queue` wait; whoever comes beyond that is told to come back, rather than to wait for a timeout."""

    def __init__(self, *, cost: int, threads: int, queue: int, registry: CollectorRegistry) -> None:
        self._cost = cost
        self._bound = threads + queue
        self._under_way = 0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="bcrypt")
        # What the password of an unknown user is compared with: the same work, and never equal.
        self._nobody = _hash("", cost)
        self._seconds = Histogram("password_hash_seconds", "Time of a password hash, with its wait in the queue.", registry=registry)
        Gauge("password_hashes_under_way", "Password hashes computed or waiting.", registry=registry).set_function(lambda: self._under_way)

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
        matches = await self._run(lambda: _verify(password, password_hash or self._nobody))
        return matches and password_hash is not None

    async def _run(self, work: Callable[[], T]) -> T:
        if self._under_way >= self._bound:
            raise Overloaded
        self._under_way += 1
        future = self._threads.submit(work)
        # Counted until the thread is free, not until the caller has left.
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._done))
        with self._seconds.time():
            return await asyncio.wrap_future(future)

    def _done(self) -> None:
        self._under_way -= 1


def _prehash(password: str) -> bytes:
    return base64.b64encode(hmac.digest(LABEL, normalize_password(password).encode(), hashlib.sha256))


def _hash(password: str, cost: int) -> str:
    return SCHEME + bcrypt.hashpw(_prehash(password), bcrypt.gensalt(cost)).decode()


def _verify(password: str, password_hash: str) -> bool:
    return bcrypt.checkpw(_prehash(password), password_hash.removeprefix(SCHEME).encode())
