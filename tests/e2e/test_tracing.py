"""One call makes one trace, from the gateway through the service to SQL and Redis. Without an OTLP endpoint no service loads OpenTelemetry."""

import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest

from devstack.config import StackConfig
from devstack.stack import Stack
from tests.conftest import ENVIRONMENT
from tests.support.accounts import PASSWORD, Account, make_account
from tests.support.clients import rest_of
from tests.support.observed import log_lines, metric
from tests.support.otlp import Receiver, Span, Tree, receiver
from tests.support.waiting import eventually

OWN_SYSTEM = pytest.mark.slow("the module starts a system of its own, with tracing")
PROGRAM = pytest.mark.slow("starts a program that loads a whole service")

SENT_WITHIN_SECONDS = 10.0
# A replica that has just started does not use the cache at once.
CACHED_WITHIN_SECONDS = 5.0
# The services export spans every 100 ms; the default is five seconds.
SEND_EACH_MILLISECONDS = "100"
TITLE, CHANGED, DESCRIPTION = "a title that is nobody's business", "a change that is none either", "nor is this description"

# Builds a service's parts as its process does, and prints which parts of OpenTelemetry are loaded.
PROBE = """
import json, sys
from servicekit.process.settings import load
from servicekit.process.telemetry import Tracing
from {service}.app import parts
from {service}.settings import Settings
settings = load(Settings)
tracing = Tracing(settings.otel_service_name, settings.otel_exporter_otlp_endpoint)
parts(settings)
# (redis-py imports opentelemetry.sdk.metrics wherever it is installed: not our doing, and nothing to a call.)
loaded = [name for name in ("opentelemetry.sdk.trace", "opentelemetry.instrumentation", "opentelemetry.exporter.otlp") if name in sys.modules]
print(json.dumps({{"loaded": loaded, "interceptors": len(tracing.interceptors)}}))
"""


@dataclass(frozen=True, slots=True)
class Traced:
    """A REST call, its answer, and all of its spans."""

    answer: Any
    request_id: str
    tree: Tree


@dataclass(frozen=True, slots=True)
class Story:
    """The calls made to a running system that exports its spans to a receiver."""

    stack: Stack
    account: Account
    received: Receiver
    calls: Mapping[str, Traced]


async def _require_hit(stack: Stack, rest: httpx.AsyncClient, account: Account, task_id: str) -> None:
    await rest.get(f"/api/v1/tasks/{task_id}", headers=account.headers)
    assert await metric(stack, "task-1", "task_cache_reads_total", outcome="hit") > 0


@pytest.fixture(scope="module")
async def story() -> AsyncIterator[Story]:
    async with receiver() as (received, endpoint):
        environment = {**ENVIRONMENT, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": SEND_EACH_MILLISECONDS}
        async with Stack(StackConfig(environment=environment)) as stack, rest_of(stack) as rest:
            account = await make_account(rest)
            task = (await rest.post("/api/v1/tasks", json={"title": "Read until it is cached"}, headers=account.headers)).json()
            await eventually(lambda: _require_hit(stack, rest, account, task["id"]), within=CACHED_WITHIN_SECONDS)
            answers = await _tell(stack.state.url, account)
            trees = await eventually(lambda: _all_complete(received, answers), within=SENT_WITHIN_SECONDS)
            yield Story(stack, account, received, {name: Traced(answer, id_, trees[name]) for name, (id_, answer) in answers.items()})


@OWN_SYSTEM
def test_creating_a_task_is_one_tree_from_the_gateway_to_sql(story: Story) -> None:
    tree = story.calls["create"].tree
    # Without the Redis spans: the service publishes wake-ups after the call, perhaps several at once.
    (sql,) = [span for span in _store_spans(tree) if span.attributes["db.system"] == "postgresql"]
    _assert_path(tree, sql, "taskmanager.task.v1.TaskService/CreateTask")
    assert "task.write(" in sql.attributes["db.statement"]


@OWN_SYSTEM
def test_getting_a_task_shows_redis_and_only_at_first_sql(story: Story) -> None:
    first, again = story.calls["get"].tree, story.calls["get again"].tree
    for span in (*_store_spans(first), *_store_spans(again)):
        _assert_path(first if span in first.spans else again, span, "taskmanager.task.v1.TaskService/GetTask")
    assert {span.attributes["db.system"] for span in _store_spans(first)} == {"redis", "postgresql"}
    assert [span.attributes["db.system"] for span in _store_spans(again)] == ["redis"]


@OWN_SYSTEM
def test_a_login_is_traced_through_the_other_service(story: Story) -> None:
    tree = story.calls["login"].tree
    systems = sorted(span.attributes["db.system"] for span in _store_spans(tree))
    # SQL: read the account, create the session. Redis: count the attempt from an address that the account knows, and give it back.
    assert (systems.count("postgresql"), systems.count("redis")) == (2, 2)
    for sql in _store_spans(tree):
        _assert_path(tree, sql, "taskmanager.auth.v1.AuthService/Login", service="auth-service")


@OWN_SYSTEM
def test_the_log_line_of_a_call_carries_its_trace(story: Story) -> None:
    call = story.calls["list"]
    lines = [line for line in log_lines(story.stack, "task-1") if line.get("request_id") == call.request_id]
    assert [line["trace_id"] for line in lines] == [call.tree.spans[0].trace_id]


@OWN_SYSTEM
def test_an_error_is_on_its_span(story: Story) -> None:
    (server,) = [span for span in story.calls["get nothing"].tree.of("task-service") if "rpc.system" in span.attributes]
    assert server.attributes["rpc.grpc.status_code"] == "5"


@OWN_SYSTEM
def test_no_span_tells_what_people_wrote_or_who_they_are(story: Story) -> None:
    tokens = story.calls["login"].answer
    signature = story.account.access_token.rpartition(".")[2]
    secrets = [TITLE, CHANGED, DESCRIPTION, PASSWORD, story.account.email, signature, tokens["access_token"], tokens["refresh_token"]]
    told = [(span.service, span.name, text) for span in story.received.spans for text in span.texts if any(secret in text for secret in secrets)]
    assert told == []


@PROGRAM
@pytest.mark.parametrize("service", ["auth_service", "task_service"])
def test_without_an_endpoint_nothing_of_opentelemetry_is_loaded(service: str) -> None:
    assert _probe(service, {}) == {"loaded": [], "interceptors": 0}


@PROGRAM
def test_with_an_endpoint_it_is() -> None:
    found = _probe("task_service", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
    assert found["interceptors"] == 1
    assert "opentelemetry.sdk.trace" in found["loaded"]


async def _tell(url: str, account: Account) -> dict[str, tuple[str, Any]]:
    """Makes the calls. Returns each call's request id and answer by its name."""
    told: dict[str, tuple[str, Any]] = {}

    async def call(name: str, verb: str, path: str, body: object = None) -> Any:
        request_id = str(uuid4())
        told[name] = request_id, await _request(verb, url + path, {**account.headers, "x-request-id": request_id}, body)
        return told[name][1]

    task = await call("create", "POST", "/api/v1/tasks", {"title": TITLE, "description": DESCRIPTION})
    for name in ("get", "get again"):
        await call(name, "GET", f"/api/v1/tasks/{task['id']}")
    await call("list", "GET", "/api/v1/tasks")
    await call("get nothing", "GET", f"/api/v1/tasks/{uuid4()}")
    await call("change", "PATCH", f"/api/v1/tasks/{task['id']}", {"title": CHANGED})
    tokens = await call("login", "POST", "/api/v1/auth/login", {"email": account.email, "password": PASSWORD})
    await call("refresh", "POST", "/api/v1/auth/refresh", {"refresh_token": tokens["refresh_token"]})
    # Envoy exports spans in groups of five or every five seconds. These calls make it export all spans of the calls above.
    for _ in range(3):
        await _request("GET", f"{url}/api/v1/tasks", account.headers)
    return told


async def _all_complete(received: Receiver, told: Mapping[str, tuple[str, Any]]) -> dict[str, Tree]:
    return {name: _complete(received, request_id) for name, (request_id, _) in told.items()}


def _complete(received: Receiver, request_id: str) -> Tree:
    """Returns all spans of a call. Fails while some have not arrived."""
    (root,) = [span for span in received.spans if span.attributes.get("guid:x-request-id") == request_id and not span.parent_id] or [None]
    assert root is not None, "the gateway's span has not arrived"
    tree = received.tree(root.trace_id)
    ids = {span.span_id for span in tree.spans}
    assert all(span.parent_id in ids for span in tree.spans if span is not root), "a parent span has not arrived"
    assert any(span.service != "gateway" for span in tree.spans), "the service's spans have not arrived"
    return tree


async def _request(verb: str, url: str, headers: Mapping[str, str], body: object = None) -> Any:
    """Makes a REST call with curl, which sends no trace headers, or with httpx if curl is missing."""
    if shutil.which("curl"):
        return await asyncio.to_thread(_curl, verb, url, headers, body)
    async with httpx.AsyncClient() as client:
        return (await client.request(verb, url, headers=dict(headers), json=body)).json()


def _curl(verb: str, url: str, headers: Mapping[str, str], body: object) -> Any:
    options = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    data = [] if body is None else ["-d", json.dumps(body), "-H", "content-type: application/json"]
    done = subprocess.run(["curl", "-sS", "-X", verb, *options, *data, url], check=True, capture_output=True, timeout=20)
    return json.loads(done.stdout)


def _store_spans(tree: Tree) -> list[Span]:
    """Returns the spans of PostgreSQL and Redis."""
    return [span for span in tree.spans if "db.system" in span.attributes]


def _assert_path(tree: Tree, span: Span, rpc: str, service: str = "task-service") -> None:
    """Fails unless the span's ancestors are the service's call, the gateway's call to the service, and the gateway's own span."""
    store, server, *gateway = tree.ancestry(span)
    assert (store.service, server.service) == (service, service)
    assert "rpc.system" in server.attributes
    assert rpc in server.name
    assert [each.service for each in gateway] == ["gateway", "gateway"]
    assert gateway[-1].parent_id == ""


def _probe(service: str, environment: Mapping[str, str]) -> Any:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    stores = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "REDIS_URL": "redis://127.0.0.1:1/0"}
    secrets = {"SERVICE_TOKEN": "x" * 32, "KEY_ENCRYPTION_KEY": base64.b64encode(bytes(32)).decode()}
    others = {"AUTH_GRPC_ENDPOINT": "127.0.0.1:1", "JWKS_URL": "http://127.0.0.1:1/"}  # for task_service
    told = {**inherited, "ENVIRONMENT": "development", **stores, **secrets, **others, **environment}
    done = subprocess.run([sys.executable, "-c", PROBE.format(service=service)], check=True, capture_output=True, timeout=30, env=told)
    return json.loads(done.stdout)
