"""Sends a request to a URL that a stranger has chosen, and reads as little of the answer as needed.

Contract: it looks the host's name up itself for each request, refuses it if one of the addresses is not allowed, and connects to an address that was
checked. It follows no redirect, uses no proxy, sends no credentials, reuses no connection, and keeps no cookie.
"""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from ssl import SSLContext
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from task_service.webhooks.domain import Answer
from task_service.webhooks.targets import Network, is_allowed

# The most that is read of an answer, and for how long once its status is known. The status alone counts.
MAX_ANSWER_BYTES: Final = 64 * 1024
MAX_ANSWER_SECONDS: Final = 1.0
# The C library looks names up, and waits seconds for a name server that does not answer. Other requests must not wait for such a look-up.
LOOK_UP_THREADS: Final = 128
USER_AGENT: Final = "task-manager-webhooks"
REFUSED: Final = Answer(0, "The host has an address that is not public.")

# Returns the addresses of a host's name, in text. Raises OSError.
LookUp = Callable[[str], Sequence[str]]


class AddressRefused(OSError):
    """A name has an address to which the sender does not connect."""


class CheckedResolver(AbstractResolver):
    """Looks names up for aiohttp, which connects to what this returns."""

    def __init__(self, allowed: Sequence[Network], look_up: LookUp) -> None:
        self._allowed = allowed
        self._look_up = look_up
        self._threads = ThreadPoolExecutor(LOOK_UP_THREADS, thread_name_prefix="look up")

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:  # noqa: ARG002
        """Returns the addresses of both families. Raises OSError, and AddressRefused if one of them is not allowed."""
        addresses = await asyncio.get_running_loop().run_in_executor(self._threads, partial(self._look_up, host))
        if not addresses or not all(is_allowed(address, self._allowed) for address in addresses):
            raise AddressRefused
        return [_result(host, address, port) for address in addresses]

    async def close(self) -> None:
        """Gives the threads up. One that waits for a name server ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def addresses_of(host: str) -> Sequence[str]:
    """Returns the addresses that the C library finds for a name. Raises OSError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [str(each[4][0]) for each in found]


def _result(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=socket.IPPROTO_TCP, flags=socket.AI_NUMERICHOST)


class Poster:
    """A Resource that sends requests."""

    def __init__(self, allowed: Sequence[Network], *, look_up: LookUp = addresses_of, tls: SSLContext | None = None) -> None:
        """`allowed`: networks to which the sender connects although they are not public. `tls`: None trusts the authorities of the system."""
        self._allowed = allowed
        self._look_up = look_up
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Makes the client."""
        connector = aiohttp.TCPConnector(
            resolver=CheckedResolver(self._allowed, self._look_up), ssl=self._tls or True, use_dns_cache=False, force_close=True, limit=0
        )
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False, read_bufsize=16 * 1024
        )

    async def close(self) -> None:
        """Ends all requests."""
        if self._session is not None:
            resolver = self._session.connector
            await self._session.close()
            # aiohttp closes only a resolver that it has made itself.
            if isinstance(resolver, aiohttp.TCPConnector):
                await resolver._resolver.close()  # noqa: SLF001 - see above

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_seconds: float) -> Answer:
        """Sends the body. Returns what came of it; raises nothing."""
        assert self._session is not None
        target = URL(url, encoded=True)
        if _is_address(target.host or "") and not is_allowed(target.host or "", self._allowed):
            return REFUSED
        own = {"Content-Type": "application/json", "User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
        timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        try:
            async with self._session.post(target, data=body, headers={**own, **headers}, allow_redirects=False, timeout=timeout) as response:
                await _read(response)
                return _answer(response.status)
        except TimeoutError:
            return Answer(0, f"There was no answer within {timeout_seconds:g} seconds.")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(0, _fault(error))


def _fault(error: Exception) -> str:
    """Returns what went wrong, for the owner of the webhook. It names no address."""
    if isinstance(error, aiohttp.InvalidURL):
        # Among them are addresses such as `127.1`, which the C library reads.
        return "The URL is not one that the server can send to."
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return REFUSED.error if isinstance(error.os_error, AddressRefused) else "The host's name has no address."
    if isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError):
        return "TLS failed: the certificate of the receiver is not valid for the host, or it has no TLS."
    if isinstance(error, aiohttp.ClientConnectorError):
        return "The connection failed."
    return "The receiver ended the connection without an answer, or its answer is not HTTP."


async def _read(response: aiohttp.ClientResponse) -> None:
    left = MAX_ANSWER_BYTES
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(MAX_ANSWER_SECONDS):
            while left > 0 and (chunk := await response.content.read(min(left, 16 * 1024))):
                left -= len(chunk)


def _answer(status: int) -> Answer:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Answer(status, "")
    is_redirect = HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST
    return Answer(status, f"The receiver answered {status}." + (" Redirects are not followed." if is_redirect else ""))


def _is_address(host: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host.partition("%")[0])
        return True
    return False
