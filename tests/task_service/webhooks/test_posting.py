"""What the sender does with receivers that are hostile, slow or broken. No network is allowed but public ones, unless a test says so."""

import asyncio
import ipaddress
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from task_service.webhooks.domain import Answer
from task_service.webhooks.posting import MAX_ANSWER_BYTES, REFUSED, LookUp, Poster, addresses_of
from task_service.webhooks.targets import LOOPBACK
from tests.gateway import certificates

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
NOTHING = b"HTTP/1.1 204 No Content\r\n\r\n"
NOT_HTTP = "The receiver ended the connection without an answer, or its answer is not HTTP."


class Server:
    """A server of bytes on 127.0.0.1. It notes the requests, up to their blank line."""

    def __init__(self, serve: Serve) -> None:
        self.port = 0
        self.requests: list[bytes] = []
        self.sent = 0
        self._serve = serve

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\n")
            # The beginning of TLS has no second line.
            self.requests.append(request if request.startswith(b"\x16") else request + await reader.readuntil(b"\r\n\r\n"))
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(serve)
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


def answering(*chunks: bytes, pause: float = 0.0, forever: bool = False) -> Serve:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(pause)
        while forever:
            writer.write(chunks[-1])
            await writer.drain()
            await asyncio.sleep(pause)

    return serve


@asynccontextmanager
async def posting(
    allowed: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network] = (), look_up: LookUp = addresses_of, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Callable[..., Awaitable[Answer]]]:
    poster = Poster(allowed, look_up=look_up, tls=tls)
    await poster.start()

    async def post(url: str, timeout_seconds: float = 5.0) -> Answer:
        return await poster.post(url, {"webhook-id": "msg_1"}, b"{}", timeout_seconds)

    try:
        yield post
    finally:
        await poster.close()


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "0.0.0.0", "[::]"),
        *("0x7f000001", "0x7f.1", "169.254.169.254"),
    ],
)
async def test_no_request_reaches_a_private_address_however_it_is_written(host: str) -> None:
    async with serving(answering(NOTHING)) as server, posting() as post:
        assert await post(f"http://{host}:{server.port}/") == REFUSED
        assert server.requests == []


@pytest.mark.parametrize("host", ["2130706433", "0177.0.0.1", "127.1", "0"])
async def test_aiohttp_refuses_an_address_in_another_form(host: str) -> None:
    """If a new version does not, the resolver does."""
    async with serving(answering(NOTHING)) as server, posting() as post:
        answer = await post(f"http://{host}:{server.port}/")
        assert answer == REFUSED or answer.error == "The URL is not one that the server can send to."
        assert server.requests == []


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["127.0.0.1", "1.1.1.1"], ["::ffff:127.0.0.1"], ["64:ff9b::7f00:1"], ["fe80::1%lo"], ["10.0.0.1"], []],
)
async def test_a_name_with_a_private_address_is_refused(addresses: list[str]) -> None:
    async with serving(answering(NOTHING)) as server, posting(look_up=lambda _: addresses) as post:
        assert await post(f"http://hooks.example:{server.port}/") == REFUSED
        assert server.requests == []


async def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    """A name server that gives a public address first and a private one after that gets the request to neither a second time."""
    asked: list[str] = []

    def rebinding(host: str) -> Sequence[str]:
        asked.append(host)
        # 192.0.2.0/24 is allowed in this test and is nowhere: a connection there fails.
        return ["192.0.2.1"] if len(asked) == 1 else ["127.0.0.1"]

    async with serving(answering(NOTHING)) as server, posting([ipaddress.ip_network("192.0.2.0/24")], rebinding) as post:
        assert not (await post(f"http://hooks.example:{server.port}/", 1.0)).succeeded
        assert asked == ["hooks.example"]
        assert await post(f"http://hooks.example:{server.port}/", 1.0) == REFUSED
        assert server.requests == []


async def test_each_request_looks_the_name_up_again() -> None:
    asked: list[str] = []

    def look_up(host: str) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"]

    async with serving(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")) as server, posting(LOOPBACK, look_up) as post:
        for _ in range(3):
            assert await post(f"http://hooks.example:{server.port}/a?b=%2Fc") == Answer(200, "")
        assert asked == ["hooks.example"] * 3
        assert server.requests[0].startswith(b"POST /a?b=%2Fc HTTP/1.1\r\nHost: hooks.example:")


async def test_a_redirect_to_loopback_is_not_followed() -> None:
    async with serving(answering(NOTHING)) as target, posting(LOOPBACK) as post:
        moved = f"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:{target.port}/\r\ncontent-length: 0\r\n\r\n".encode()
        async with serving(answering(moved)) as server:
            answer = await post(f"http://127.0.0.1:{server.port}/")
        assert (answer.status, answer.error) == (307, "The receiver answered 307. Redirects are not followed.")
        assert target.requests == []


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answering(NOTHING)) as proxy, serving(answering(NOTHING)) as server, posting(LOOPBACK) as post:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert (await post(f"http://127.0.0.1:{server.port}/")).succeeded
        assert (len(proxy.requests), len(server.requests)) == (0, 1)


async def test_of_a_huge_answer_little_is_read() -> None:
    sent = 0

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536

    async with serving(flood) as server, posting(LOOPBACK) as post:
        assert await post(f"http://127.0.0.1:{server.port}/") == Answer(200, "")
        await asyncio.sleep(0.2)
        # The kernel's buffers and those of asyncio hold the rest.
        assert sent < MAX_ANSWER_BYTES + 16 * 1024 * 1024


async def test_an_answer_that_never_ends_counts_by_its_status() -> None:
    head = b"HTTP/1.1 202 Accepted\r\ntransfer-encoding: chunked\r\n\r\n"
    async with serving(answering(head, b"1\r\nx\r\n", pause=0.05, forever=True)) as server, posting(LOOPBACK) as post:
        began = time.monotonic()
        assert await post(f"http://127.0.0.1:{server.port}/") == Answer(202, "")
        assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    "slow",
    [
        answering(b"HTTP/1.1 200 OK\r\n", b"x-slow: 1\r\n", pause=0.1, forever=True),
        answering(b"H", pause=10),
        answering(b"HTTP/1.1 100 Continue\r\n\r\n", pause=0.05, forever=True),
        answering(b"HTTP/1.1 103 Early Hints\r\n\r\n", pause=0.05, forever=True),
    ],
    ids=["headers", "status line", "100", "103"],
)
async def test_slow_headers_end_at_the_time_limit(slow: Serve) -> None:
    async with serving(slow) as server, posting(LOOPBACK) as post:
        began = time.monotonic()
        answer = await post(f"http://127.0.0.1:{server.port}/", 1.0)
        assert (answer.status, time.monotonic() - began < 3) == (0, True)
        assert not answer.succeeded


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n", b"SSH-2.0-OpenSSH\r\n", b"", b"HTTP/1.1 2000 OK\r\n\r\n", b"\x16\x03\x01" * 100],
    ids=["long header", "ssh", "nothing", "status", "tls"],
)
async def test_what_is_not_http_is_a_failure(head: bytes) -> None:
    async with serving(answering(head)) as server, posting(LOOPBACK) as post:
        assert await post(f"http://127.0.0.1:{server.port}/") == Answer(0, NOT_HTTP)


async def test_a_compressed_answer_is_not_expanded() -> None:
    async with serving(answering(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc")) as server, posting(LOOPBACK) as post:
        assert await post(f"http://127.0.0.1:{server.port}/") == Answer(200, "")


async def test_a_port_where_nobody_listens_is_a_failure() -> None:
    async with serving(answering(NOTHING)) as server:
        port = server.port
    async with posting(LOOPBACK) as post:
        assert await post(f"http://127.0.0.1:{port}/") == Answer(0, "The connection failed.")
        assert await post("http://no-such-name.invalid/") == Answer(0, "The host's name has no address.")


async def test_slow_look_ups_delay_no_other_request() -> None:
    def look_up(host: str) -> Sequence[str]:
        if host.startswith("slow"):
            time.sleep(2)
        return ["127.0.0.1"]

    async with serving(answering(NOTHING)) as server, posting(LOOPBACK, look_up) as post:
        slow = [asyncio.create_task(post(f"http://slow{number}.example:{server.port}/", 5.0)) for number in range(60)]
        await asyncio.sleep(0.1)
        began = time.monotonic()
        assert (await post(f"http://quick.example:{server.port}/")).succeeded
        assert time.monotonic() - began < 1
        assert not any(each.done() for each in slow)
        await asyncio.gather(*slow)


@pytest.mark.parametrize(
    ("host", "trusts", "speaks_tls"),
    [("127.0.0.1", True, True), ("127.0.0.1", False, True), ("hooks.example", True, True), ("127.0.0.1", True, False)],
    ids=["right", "unknown authority", "another name", "no TLS"],
)
async def test_tls_is_verified(tmp_path: Path, host: str, trusts: bool, speaks_tls: bool) -> None:  # noqa: FBT001 - a case
    certificate, key = certificates.write(tmp_path)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate, key)
    trusted = ssl.create_default_context(cafile=certificate) if trusts else None
    is_right = (host, trusts, speaks_tls) == ("127.0.0.1", True, True)
    async with serving(answering(NOTHING), served if speaks_tls else None) as server, posting(LOOPBACK, lambda _: ["127.0.0.1"], trusted) as post:
        answer = await post(f"https://{host}:{server.port}/")
        assert answer.succeeded == is_right
        if not is_right:
            assert answer.error.startswith("TLS failed") or not speaks_tls
            assert [each for each in server.requests if each.startswith(b"POST")] == []
