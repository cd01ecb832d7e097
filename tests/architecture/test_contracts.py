"""import-linter's contracts in pyproject.toml: the tree keeps each of them, and each finds the planted imports that break it."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.rules import ROOT, package_folder

CONFIGURATION: Mapping[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
NAMES = {contract["id"]: contract["name"] for contract in CONFIGURATION["contracts"]}

# The contract, the module into which the import is planted, and the import.
PLANTED = [
    ("services", "auth_service/users/service.py", "from task_service.tasks.domain import Task"),
    ("services", "task_service/app.py", "import auth_service.keys.ring"),
    ("packages", "task_service/app.py", "from devstack.stack import Stack"),
    ("packages", "gateway/config.py", "import devstack"),
    ("packages", "servicekit/process/app.py", "from tests.support import errors"),
    ("packages", "servicekit/process/settings.py", "from helm import chart"),
    ("helm", "helm/chart.py", "from devstack.stack import Stack"),
    ("servicekit-imports-no-service", "servicekit/process/app.py", "from auth_service import settings"),
    ("servicekit-imports-no-service", "servicekit/process/runtime.py", "import task_service"),
    ("gateway", "gateway/config.py", "from servicekit.process.settings import load"),
    ("services-import-no-gateway", "auth_service/app.py", "from gateway.routes import routes"),
    ("devstack", "devstack/stack.py", "import auth_service"),
    ("servicekit-rooms", "servicekit/stores/redis.py", "from servicekit.rpc.call import Call"),
    ("servicekit-rooms", "servicekit/access/tokens.py", "from servicekit.process import settings"),
    ("servicekit-rooms", "servicekit/errors.py", "from servicekit.stores.postgres import Database"),
    ("servicekit-rooms", "servicekit/rpc/pipeline.py", "from servicekit.process.logging import configure"),
    ("auth-rooms", "auth_service/users/service.py", "from auth_service.sessions.domain import Session"),
    ("auth-rooms", "auth_service/passwords/hasher.py", "from auth_service.users.domain import User"),
    ("auth-rooms", "auth_service/keys/ring.py", "from auth_service.settings import Settings"),
    ("auth-rooms", "auth_service/events/handler.py", "from auth_service.app import run"),
    ("task-rooms", "task_service/query/domain.py", "from task_service.tasks.domain import Task"),
    ("task-rooms", "task_service/tasks/handler.py", "from task_service.feed.service import FeedService"),
    ("task-rooms", "task_service/accounts/service.py", "from task_service.feed.domain import Change"),
    ("task-rooms", "task_service/feed/service.py", "def f():\n    from ..app import run"),
    ("task-rooms", "task_service/due/domain.py", "from task_service.tasks.domain import Task"),
    ("layers", "task_service/tasks/domain.py", "from task_service.tasks.service import TaskService"),
    ("layers", "task_service/tasks/domain.py", "from task_service.tasks import repository"),
    ("layers", "task_service/tasks/service.py", "import task_service.tasks.repository"),
    ("layers", "task_service/tasks/service.py", "from task_service.tasks.cache import CachedTasks"),
    ("layers", "task_service/tasks/service.py", "def f():\n    from .handler import TaskHandler"),
    ("layers", "task_service/tasks/cache.py", "from task_service.tasks.handler import TaskHandler"),
    ("layers", "task_service/query/filter_syntax.py", "from task_service.query.list_statement import list_statement"),
    ("layers", "task_service/query/domain.py", "from task_service.query.condition_sql import sql_of"),
    ("layers", "auth_service/keys/domain.py", "from auth_service.keys.ring import KeyRing"),
    ("handlers", "task_service/tasks/handler.py", "from task_service.tasks.repository import PostgresTasks"),
    ("handlers", "auth_service/sessions/handler.py", "from auth_service.users.repository import PostgresUsers"),
    ("repositories", "task_service/tasks/repository.py", "from task_service.tasks.service import TaskService"),
    ("repositories", "auth_service/keys/repository.py", "from auth_service.keys import service"),
    ("sql-of-lists", "task_service/tasks/service.py", "from task_service.query.list_statement import list_statement"),
    ("sql-of-lists", "task_service/query/domain.py", "import task_service.query.condition_sql"),
    ("filter-texts", "task_service/query/list_statement.py", "from task_service.query.filter_syntax import parse"),
    ("main", "auth_service/__main__.py", "from auth_service.users.handler import UserHandler"),
    ("main", "task_service/__main__.py", "def f():\n    from .tasks import repository"),
    ("use-cases", "task_service/tasks/service.py", "import asyncpg"),
    ("use-cases", "task_service/feed/service.py", "from servicekit.stores.redis import Redis"),
    ("use-cases", "auth_service/users/domain.py", "from servicekit.rpc.status import code_of"),
    ("layers", "task_service/due/zones.py", "from task_service.due.recurrence import next_due"),
    ("due", "task_service/due/recurrence.py", "from servicekit.stores.postgres import Database"),
    ("due", "task_service/due/zones.py", "import asyncio"),
    ("stores-and-access", "servicekit/stores/wakeups.py", "import grpc"),
    ("stores-and-access", "servicekit/access/jwks.py", "from google.protobuf import message"),
    ("packages", "task_service/app.py", "from task_manager_client import Client"),
    ("client", "task_manager_client/values.py", "from taskmanager.task.v1 import task_pb2"),
    ("client", "task_manager_client/cli/main.py", "from devstack.config import HOST"),
    ("client-layers", "task_manager_client/core.py", "from task_manager_client import client"),
    ("client-layers", "task_manager_client/errors.py", "from task_manager_client.values import Task"),
    ("client-logic", "task_manager_client/core.py", "import httpx"),
    ("client-logic", "task_manager_client/retries.py", "import asyncio"),
    ("client-library", "task_manager_client/client.py", "import rich"),
    ("client-library", "task_manager_client/transfer/importer.py", "import typer"),
    ("client-files", "task_manager_client/transfer/ics.py", "from task_manager_client.transfer import importer"),
    ("client-command", "task_manager_client/cli/output.py", "from task_manager_client.cli.place import Place"),
]


# A file name that no layer has.
NEW_MODULE = "task_service/tasks/undo.py"


def _lint(folder: Path) -> str:
    """Returns import-linter's report on the packages in a folder, on one line."""
    command = (Path(sys.executable).parent / "lint-imports", "--no-logo", "--no-cache")
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert "Contracts:" in run.stdout, run.stdout + run.stderr
    return re.sub(r"\s+", " ", run.stdout)


@pytest.fixture(scope="module")
def kept() -> str:
    return _lint(ROOT)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report on a copy of the packages that contains all planted imports."""
    folder = tmp_path_factory.mktemp("planted")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in CONFIGURATION["root_packages"]:
        shutil.copytree(package_folder(package), folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for _, module, text in PLANTED:
        with (folder / module).open("a") as file:
            file.write(f"\n{text}\n")
    (folder / NEW_MODULE).touch()
    return _lint(folder)


@pytest.mark.parametrize("contract", NAMES)
def test_the_tree_keeps_the_contract(kept: str, contract: str) -> None:
    assert f"{NAMES[contract]} KEPT" in kept


@pytest.mark.parametrize(("contract", "module", "text"), PLANTED)
def test_a_planted_import_breaks_the_contract(broken: str, contract: str, module: str, text: str) -> None:
    assert f"{NAMES[contract]} BROKEN" in broken
    # The report on this contract, up to the next one's or the end.
    others = "|".join(re.escape(name) for name in NAMES.values())
    report = re.search(rf" {re.escape(NAMES[contract])} -+ (.*?)(?= (?:{others}) -+ |$)", broken)
    assert report is not None
    assert f"{module.removesuffix('.py').replace('/', '.')} -> " in report[1]


def test_a_module_without_a_layer_is_found(broken: str) -> None:
    assert "The following modules are not listed as layers: - task_service.tasks.undo" in broken


def test_every_contract_has_a_planted_import() -> None:
    assert {contract for contract, _, _ in PLANTED} == set(NAMES)
