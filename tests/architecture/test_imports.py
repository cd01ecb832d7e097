"""Who may import whom, and who may know what; and each rule on a planted text that breaks it."""

from collections.abc import Callable

import pytest

from tests.architecture import rules
from tests.architecture.rules import PRODUCT, SERVICES, Module, modules

Rule = Callable[[Module], list[str]]

product = pytest.mark.parametrize("module", modules(*PRODUCT), ids=lambda module: module.name)
services = pytest.mark.parametrize("module", modules(*SERVICES), ids=lambda module: module.name)
core = pytest.mark.parametrize("module", modules("servicekit", *SERVICES), ids=lambda module: module.name)


def test_the_modules_are_found() -> None:
    names = {module.name for module in modules(*PRODUCT)}
    assert {"servicekit.pipeline", "auth_service.service", "task_service.repository", "gateway.config", "devstack.stack", "task_service"} <= names


@services
def test_within_a_service_imports_go_inwards(module: Module) -> None:
    assert rules.layer_breaks(module) == []


@core
def test_only_handlers_and_the_edge_know_grpc_and_protobuf(module: Module) -> None:
    assert rules.wire_breaks(module) == []


@core
def test_only_repositories_and_caches_know_their_stores(module: Module) -> None:
    assert rules.store_breaks(module) == []


@core
def test_only_repositories_and_caches_hold_statements(module: Module) -> None:
    assert rules.statement_breaks(module) == []


@pytest.mark.parametrize("start", [f"{service}.{name}" for service in SERVICES for name in ("service", "domain")])
def test_use_cases_reach_neither_wire_nor_store_by_any_way(start: str) -> None:
    assert rules.reach_breaks(start, modules("servicekit", *SERVICES), [*rules.WIRE, *rules.STORES]) == []


@product
def test_packages_know_only_those_that_they_may(module: Module) -> None:
    assert rules.package_breaks(module) == []


@product
def test_a_module_says_what_it_is_for(module: Module) -> None:
    assert rules.undocumented(module) == []


PLANTED: list[tuple[Rule, str, str]] = [
    (rules.layer_breaks, "task_service.domain", "from task_service.service import TaskService"),
    (rules.layer_breaks, "task_service.domain", "from task_service import repository"),
    (rules.layer_breaks, "task_service.service", "import task_service.repository"),
    (rules.layer_breaks, "task_service.service", "from task_service.cache import CachedTasks"),
    (rules.layer_breaks, "task_service.service", "def f():\n    from .handler import TaskHandler"),
    (rules.layer_breaks, "task_service.service", "from . import app"),
    (rules.layer_breaks, "task_service.repository", "from task_service.service import TaskService"),
    (rules.layer_breaks, "task_service.handler", "from task_service.repository import PostgresTasks"),
    (rules.layer_breaks, "task_service.handler", "from task_service.app import run"),
    (rules.layer_breaks, "task_service.filter_syntax", "from task_service.list_statement import list_statement"),
    (rules.layer_breaks, "task_service.conditions", "from task_service.condition_sql import sql_of"),
    (rules.layer_breaks, "task_service.list_statement", "from task_service.filter_syntax import parse_filter"),
    (rules.layer_breaks, "task_service.cache", "from task_service.handler import to_message"),
    (rules.layer_breaks, "task_service.__main__", "from task_service.handler import TaskHandler"),
    (rules.wire_breaks, "task_service.service", "import grpc"),
    (rules.wire_breaks, "task_service.service", "from grpc import aio"),
    (rules.wire_breaks, "task_service.domain", "from google.protobuf.timestamp_pb2 import Timestamp"),
    (rules.wire_breaks, "task_service.repository", "from taskmanager.task.v1 import task_pb2"),
    (rules.wire_breaks, "task_service.app", "import grpc.aio"),
    (rules.wire_breaks, "task_service.app", "from taskmanager.rpc.v1.access_pb2 import ACCESS_PUBLIC"),
    (rules.wire_breaks, "servicekit.errors", "import protovalidate"),
    (rules.wire_breaks, "servicekit.postgres", "import grpc"),
    (rules.store_breaks, "task_service.service", "import asyncpg"),
    (rules.store_breaks, "task_service.handler", "from asyncpg import UniqueViolationError"),
    (rules.store_breaks, "task_service.repository", "import redis.asyncio"),
    (rules.store_breaks, "task_service.cache", "import asyncpg"),
    (rules.store_breaks, "servicekit.pipeline", "import redis"),
    (rules.statement_breaks, "task_service.service", 'x = "SELECT 1 FROM task.tasks"'),
    (rules.statement_breaks, "task_service.filter_syntax", 'x = "SELECT id FROM task.tasks"'),
    (rules.statement_breaks, "task_service.handler", 'x = f"INSERT INTO {table} VALUES (1)"'),
    (rules.statement_breaks, "task_service.app", 'x = """\n  UPDATE task.tasks SET title = 1"""'),
    (rules.statement_breaks, "auth_service.sessions", 'x = "DELETE FROM auth.sessions"'),
    (rules.statement_breaks, "auth_service.service", 'x = "WITH a AS (SELECT 1) SELECT 2"'),
    (rules.statement_breaks, "task_service.service", "x = \"return redis.call('GET', KEYS[1])\""),
    (rules.statement_breaks, "servicekit.health", 'x = "SELECT 1"'),
    (rules.package_breaks, "auth_service.service", "from task_service.domain import Task"),
    (rules.package_breaks, "task_service.app", "import auth_service.keys"),
    (rules.package_breaks, "servicekit.app", "from auth_service import settings"),
    (rules.package_breaks, "servicekit.app", "import task_service"),
    (rules.package_breaks, "task_service.app", "from devstack.stack import Stack"),
    (rules.package_breaks, "gateway.config", "import devstack"),
    (rules.package_breaks, "servicekit.app", "from tests.support import errors"),
    (rules.package_breaks, "devstack.stack", "import auth_service"),
    (rules.undocumented, "servicekit.app", "x = 1"),
]


@pytest.mark.parametrize(("rule", "name", "text"), PLANTED)
def test_a_planted_break_is_found(rule: Rule, name: str, text: str) -> None:
    assert rule(Module(name, text))


ALLOWED: list[tuple[Rule, str, str]] = [
    (rules.layer_breaks, "task_service.service", "from task_service.domain import Task"),
    (rules.layer_breaks, "task_service.app", "from task_service.handler import TaskHandler"),
    (rules.wire_breaks, "task_service.handler", "from google.protobuf import message"),
    (rules.wire_breaks, "task_service.app", "from taskmanager.auth.v1 import auth_service_pb2"),
    (rules.wire_breaks, "task_service.service", "import grpcish"),
    (rules.store_breaks, "task_service.repository", "import asyncpg"),
    (rules.statement_breaks, "task_service.service", '"""SELECT is what repositories do."""\nx = "Select a task with this"'),
    (rules.package_breaks, "bench.load", "import devstack"),
    (rules.package_breaks, "devstack.gateway", "from gateway.config import render"),
]


@pytest.mark.parametrize(("rule", "name", "text"), ALLOWED)
def test_what_is_allowed_is_not_found(rule: Rule, name: str, text: str) -> None:
    assert rule(Module(name, text)) == []


def test_a_planted_chain_is_found() -> None:
    chain = [Module("a.service", "from b.one import x"), Module("b.one", "import b.two"), Module("b.two", "import asyncpg")]
    assert rules.reach_breaks("a.service", chain, ["asyncpg"]) == ["a.service reaches asyncpg through b.two"]
    assert rules.reach_breaks("a.service", chain, ["redis"]) == []
