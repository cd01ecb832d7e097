"""The issuer's keys, fetched from a real HTTP server."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from auth_service.keys.ring import KeyRing
from servicekit.access import jwks
from servicekit.access.jwks import RemoteKeys, public_keys
from servicekit.errors import DependencyUnavailable
from tests.support.keys import key_ring
from tests.support.waiting import eventually

INTERVAL_SECONDS = 0.2


class Issuer:
    """Serves the key set that the test publishes."""

    def __init__(self) -> None:
        self.answer: Any = {}
        self.status = 200
        self.delay_seconds = 0.0
        self.asked = 0
        self.url = ""

    def publish(self, *keys: KeyRing) -> None:
        self.answer = {"keys": [key for ring in keys for key in ring.jwks()["keys"]]}

    async def serve(self, _: web.Request) -> web.Response:
        self.asked += 1
        await asyncio.sleep(self.delay_seconds)
        return web.json_response(self.answer, status=self.status)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    served = Issuer()
    app = web.Application()
    app.router.add_get("/jwks.json", served.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}/jwks.json"
    yield served
    await runner.cleanup()


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the interval, so that the tests need not wait for seconds."""
    monkeypatch.setattr(jwks, "MIN_FETCH_INTERVAL_SECONDS", INTERVAL_SECONDS)


def kid_of(ring: KeyRing) -> str:
    return ring.current()[0]


def public_of(ring: KeyRing) -> Ed25519PublicKey:
    return ring.current()[1].public_key()


async def test_a_key_of_the_set_is_found(issuer: Issuer) -> None:
    key = key_ring()
    issuer.publish(key, key_ring())
    found = await RemoteKeys(issuer.url, CollectorRegistry()).find(kid_of(key))
    assert found == public_of(key)


async def test_a_set_is_kept(issuer: Issuer) -> None:
    key = key_ring()
    issuer.publish(key)
    keys = RemoteKeys(issuer.url, CollectorRegistry())
    for _ in range(5):
        await keys.find(kid_of(key))
    assert issuer.asked == 1


async def test_a_new_key_is_found_without_waiting_for_the_refresh(issuer: Issuer) -> None:
    old, new = key_ring(), key_ring()
    issuer.publish(old)
    keys = RemoteKeys(issuer.url, CollectorRegistry())
    assert await keys.find(kid_of(old))
    issuer.publish(old, new)
    await asyncio.sleep(INTERVAL_SECONDS)
    assert await keys.find(kid_of(new)) == public_of(new)


async def test_made_up_kids_are_asked_for_seldom(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "MIN_FETCH_INTERVAL_SECONDS", 1000.0)
    issuer.publish(key_ring())
    keys = RemoteKeys(issuer.url, CollectorRegistry())
    found = await asyncio.gather(*(keys.find(f"made-up-{i}") for i in range(50)))
    assert set(found) == {None}
    # And one after the other, so that they do not share one running fetch.
    for i in range(50, 60):
        assert await keys.find(f"made-up-{i}") is None
    assert issuer.asked == 1
    monkeypatch.setattr(jwks, "MIN_FETCH_INTERVAL_SECONDS", INTERVAL_SECONDS)
    await asyncio.sleep(INTERVAL_SECONDS)
    await keys.find("made-up")
    assert issuer.asked == 2


@pytest.mark.parametrize("trouble", ["gone", "error", "nonsense", "no-keys"])
async def test_while_the_issuer_is_away_the_last_good_set_is_used(issuer: Issuer, trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = key_ring()
    issuer.publish(key)
    keys = RemoteKeys(issuer.url, CollectorRegistry())
    assert await keys.find(kid_of(key))
    monkeypatch.setattr(jwks, "REFRESH_SECONDS", 0.0)
    issuer.status = 503 if trouble == "error" else 200
    issuer.answer = {"nonsense": [1, 2], "no-keys": {"keys": []}}.get(trouble, issuer.answer)
    if trouble == "gone":
        monkeypatch.setattr(keys, "_url", "http://127.0.0.1:1/jwks.json")
    await asyncio.sleep(INTERVAL_SECONDS)
    assert await keys.find(kid_of(key)) == public_of(key)
    with pytest.raises(DependencyUnavailable):
        await keys.find("perhaps new")
    await keys.ready()
    assert trouble == "gone" or issuer.asked == 2


async def test_a_withdrawn_key_is_no_longer_good(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = key_ring(), key_ring()
    issuer.publish(old)
    keys = RemoteKeys(issuer.url, CollectorRegistry())
    assert await keys.find(kid_of(old))
    issuer.publish(new)
    monkeypatch.setattr(jwks, "REFRESH_SECONDS", 0.0)
    await asyncio.sleep(INTERVAL_SECONDS)
    # The first call of `holds` starts the fetch and does not wait for it.
    async with asyncio.timeout(10):
        while keys.holds(kid_of(old)):
            await asyncio.sleep(0.01)
    assert keys.holds(kid_of(new))
    assert await keys.find(kid_of(old)) is None


async def test_an_old_set_is_fetched_anew_once(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    key = key_ring()
    issuer.publish(key)
    keys = RemoteKeys(issuer.url, CollectorRegistry())
    assert await keys.find(kid_of(key))
    await asyncio.sleep(INTERVAL_SECONDS)
    assert keys.holds(kid_of(key))
    await asyncio.sleep(0.05)
    assert issuer.asked == 1
    monkeypatch.setattr(jwks, "REFRESH_SECONDS", 0.0)
    assert all(keys.holds(kid_of(key)) for _ in range(10))
    assert keys._fetching is not None, "`holds` has started no fetch"
    await keys.refresh()
    assert issuer.asked == 2


async def test_a_known_key_waits_for_no_fetch(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The issuer accepts connections and never answers. This must not delay callers whose key is known."""
    known = key_ring()
    issuer.publish(known)
    keys = RemoteKeys(issuer.url, CollectorRegistry())
    assert await keys.find(kid_of(known))

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    keys._url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}/"
    monkeypatch.setattr(jwks, "REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(jwks, "MIN_FETCH_INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", aiohttp.ClientTimeout(total=30))
    began = asyncio.get_running_loop().time()
    assert all(keys.holds(kid_of(known)) for _ in range(10))
    assert all(await asyncio.gather(*(keys.find(kid_of(known)) for _ in range(10))))
    assert asyncio.get_running_loop().time() - began < 10
    assert keys._fetching is not None
    keys._fetching.cancel()
    await asyncio.gather(keys._fetching, return_exceptions=True)
    silent.close()
    await asyncio.sleep(0.05)


async def test_without_any_set_it_says_what_is_missing(issuer: Issuer) -> None:
    issuer.status = 500
    keys = RemoteKeys(issuer.url, CollectorRegistry())
    with pytest.raises(DependencyUnavailable, match="auth_service"):
        await keys.find("any")
    with pytest.raises(DependencyUnavailable):
        await keys.ready()
    issuer.status = 200
    issuer.publish(key_ring())
    await asyncio.sleep(INTERVAL_SECONDS)
    await keys.ready()


async def test_before_the_first_set_it_asks_more_and_more_rarely_and_logs_only_changes(issuer: Issuer) -> None:
    issuer.status = 500
    keys = RemoteKeys(issuer.url, CollectorRegistry())
    with capture_logs() as logs:
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            with contextlib.suppress(DependencyUnavailable):
                await keys.ready()
            await asyncio.sleep(0.02)
        # After 0, 0.2, 0.6, 1.4 and 2.4 s.
        assert 3 <= issuer.asked <= 5
        issuer.status = 200
        issuer.publish(key_ring())
        await asyncio.sleep(jwks.LONGEST_FIRST_FETCH_INTERVAL_SECONDS)
        await keys.ready()
    assert [entry["event"] for entry in logs] == ["jwks_fetch_failed", "jwks_fetch_recovered"]


async def test_a_slow_issuer_holds_nobody_up_for_long(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", aiohttp.ClientTimeout(total=0.1))
    issuer.delay_seconds = 30.0
    began = time.monotonic()
    with pytest.raises(DependencyUnavailable):
        await RemoteKeys(issuer.url, CollectorRegistry()).find("any")
    assert time.monotonic() - began < 10.0


async def test_a_fetch_under_way_does_not_hold_up_a_known_key(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", aiohttp.ClientTimeout(total=30))
    key = key_ring()
    issuer.publish(key)
    keys = RemoteKeys(issuer.url, CollectorRegistry())
    await keys.find(kid_of(key))
    await asyncio.sleep(INTERVAL_SECONDS)
    issuer.delay_seconds = 30.0
    unknown = asyncio.create_task(keys.find("unknown"))

    async def asked() -> None:
        assert issuer.asked == 2

    await eventually(asked, within=5, every=0.01)
    async with asyncio.timeout(5):
        assert await keys.find(kid_of(key))
    assert not unknown.done()
    unknown.cancel()
    await asyncio.gather(unknown, return_exceptions=True)


@pytest.mark.parametrize(
    "jwks_document",
    [None, [], "x", {}, {"keys": None}, {"keys": []}, {"keys": [{}]}, {"keys": [{"kty": "RSA", "kid": "a"}]}, {"keys": ["x"]}, {"keys": [None]}],
)
def test_what_is_no_set_of_ours_is_refused(jwks_document: Any) -> None:
    with pytest.raises(ValueError, match="JWK set"):
        public_keys(jwks_document)


def test_keys_of_other_kinds_are_left_out() -> None:
    key = key_ring()
    others = [{"kty": "RSA", "kid": "rsa", "n": "AQAB", "e": "AQAB"}, {"kty": "oct", "kid": "secret", "k": "AAAA"}]
    assert set(public_keys({"keys": [*others, *key.jwks()["keys"]]})) == {kid_of(key)}


async def test_the_age_of_the_keys_is_measured(issuer: Issuer) -> None:
    registry, key = CollectorRegistry(), key_ring()
    keys = RemoteKeys(issuer.url, registry)
    assert registry.get_sample_value("jwks_age_seconds") == float("inf")
    issuer.publish(key)
    await keys.refresh()
    assert (registry.get_sample_value("jwks_age_seconds") or 0) < 10
    issuer.status = 503
    await asyncio.sleep(INTERVAL_SECONDS)
    await keys.refresh()
    assert (registry.get_sample_value("jwks_age_seconds") or 0) >= INTERVAL_SECONDS
