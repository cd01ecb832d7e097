"""Which modules may import grpc, protobuf, asyncpg and redis, and contain SQL; and each rule applied to planted texts that violate it."""

from collections.abc import Callable

import pytest

from tests.architecture import rules
from tests.architecture.rules import PRODUCT, SERVICES, Module, modules

Rule = Callable[[Module], list[str]]

product = pytest.mark.parametrize("module", modules(*PRODUCT), ids=lambda module: module.name)
core = pytest.mark.parametrize("module", modules("servicekit", *SERVICES), ids=lambda module: module.name)


def test_the_modules_are_found() -> None:
    names = {module.name for module in modules(*PRODUCT)}
    some = {"servicekit.rpc.pipeline", "auth_service.users.service", "task_service.tasks.repository", "gateway.config", "task_service"}
    assert some | {"task_manager_client.cli.main"} <= names


@core
def test_only_handlers_and_the_edge_know_grpc_and_protobuf(module: Module) -> None:
    assert rules.wire_breaks(module) == []


@core
def test_only_repositories_and_caches_know_their_stores(module: Module) -> None:
    assert rules.store_breaks(module) == []


@core
def test_only_repositories_and_caches_hold_statements(module: Module) -> None:
    assert rules.statement_breaks(module) == []


@product
def test_a_module_says_what_it_is_for(module: Module) -> None:
    assert rules.undocumented(module) == []


@product
def test_a_module_has_something_of_its_own(module: Module) -> None:
    assert rules.only_re_exports(module) == []


PLANTED: list[tuple[Rule, str, str]] = [
    (rules.wire_breaks, "task_service.tasks.service", "import grpc"),
    (rules.wire_breaks, "task_service.tasks.service", "from grpc import aio"),
    (rules.wire_breaks, "task_service.tasks.domain", "from google.protobuf.timestamp_pb2 import Timestamp"),
    (rules.wire_breaks, "task_service.tasks.repository", "from taskmanager.task.v1 import task_pb2"),
    (rules.wire_breaks, "task_service.app", "import grpc.aio"),
    (rules.wire_breaks, "task_service.app", "from taskmanager.rpc.v1.access_pb2 import ACCESS_PUBLIC"),
    (rules.wire_breaks, "servicekit.errors", "import protovalidate"),
    (rules.wire_breaks, "servicekit.stores.postgres", "import grpc"),
    (rules.wire_breaks, "servicekit.rpc.call", "from google.protobuf.message import Message"),
    (rules.store_breaks, "task_service.tasks.service", "import asyncpg"),
    (rules.store_breaks, "task_service.tasks.handler", "from asyncpg import UniqueViolationError"),
    (rules.store_breaks, "task_service.tasks.repository", "import redis.asyncio"),
    (rules.store_breaks, "task_service.tasks.cache", "import asyncpg"),
    (rules.store_breaks, "servicekit.rpc.pipeline", "import redis"),
    (rules.store_breaks, "servicekit.access.rate_limit", "import redis"),
    (rules.statement_breaks, "task_service.tasks.service", 'x = "SELECT 1 FROM task.tasks"'),
    (rules.statement_breaks, "task_service.query.filter_syntax", 'x = "SELECT id FROM task.tasks"'),
    (rules.statement_breaks, "task_service.tasks.handler", 'x = f"INSERT INTO {table} VALUES (1)"'),
    (rules.statement_breaks, "task_service.app", 'x = """\n  UPDATE task.tasks SET title = 1"""'),
    (rules.statement_breaks, "auth_service.sessions.tokens", 'x = "DELETE FROM auth.sessions"'),
    (rules.statement_breaks, "auth_service.users.service", 'x = "WITH a AS (SELECT 1) SELECT 2"'),
    (rules.statement_breaks, "task_service.tasks.service", "x = \"return redis.call('GET', KEYS[1])\""),
    (rules.statement_breaks, "servicekit.rpc.health", 'x = "SELECT 1"'),
    (rules.undocumented, "servicekit.process.app", "x = 1"),
    (rules.only_re_exports, "servicekit.limit", '"""Limits."""\nfrom servicekit.access.rate_limit import Limit'),
    (rules.only_re_exports, "servicekit.limit", 'from servicekit.access.rate_limit import Limit\n\n__all__ = ["Limit"]'),
]


@pytest.mark.parametrize(("rule", "name", "text"), PLANTED)
def test_a_planted_break_is_found(rule: Rule, name: str, text: str) -> None:
    assert rule(Module(name, text))


ALLOWED: list[tuple[Rule, str, str]] = [
    (rules.wire_breaks, "task_service.tasks.handler", "from google.protobuf import message"),
    (rules.wire_breaks, "task_service.app", "from taskmanager.auth.v1 import auth_service_pb2"),
    (rules.wire_breaks, "task_service.tasks.service", "import grpcish"),
    (rules.store_breaks, "task_service.tasks.repository", "import asyncpg"),
    (rules.statement_breaks, "task_service.tasks.service", '"""SELECT is what repositories do."""\nx = "Select a task with this"'),
    (rules.only_re_exports, "servicekit.access", '"""A room."""'),
    (rules.only_re_exports, "task_service.x", "from task_service import app\n\nx = app.run"),
]


@pytest.mark.parametrize(("rule", "name", "text"), ALLOWED)
def test_what_is_allowed_is_not_found(rule: Rule, name: str, text: str) -> None:
    assert rule(Module(name, text)) == []
