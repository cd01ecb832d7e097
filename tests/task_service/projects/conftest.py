"""Fixtures with the storage of projects, in PostgreSQL alone and with the cache of tasks over it."""

import hashlib

import pytest

from servicekit.rpc.retry import Idempotency
from servicekit.stores.postgres import Database
from task_service.projects.cache import CachedProjects
from task_service.projects.domain import Project, ProjectFields
from task_service.projects.repository import PostgresProjects
from task_service.projects.service import ProjectRepository
from task_service.projects.writes import ProjectCreation, ProjectOperation
from task_service.tasks.cache import CachedTasks
from task_service.tasks.domain import Actor
from tests.task_service.conftest import new_id

# Instead of 500, so that few tasks need several writes.
MAX_TASKS = 5
FIELDS = ProjectFields(name="Home", description="All about the house", color="#00ff7F")


@pytest.fixture
def stored(database: Database) -> PostgresProjects:
    return PostgresProjects(database, MAX_TASKS)


@pytest.fixture(params=["postgres", "cache"])
def projects(request: pytest.FixtureRequest, stored: PostgresProjects, cached: CachedTasks) -> ProjectRepository:
    return CachedProjects(stored, cached) if request.param == "cache" else stored


async def write(projects: ProjectRepository, actor: Actor, operation: ProjectOperation) -> Project:
    """Executes an operation, and returns the project after it."""
    written = await projects.write(actor, operation)
    assert written.project is not None
    return written.project


async def make(projects: ProjectRepository, actor: Actor, name: str = FIELDS.name) -> Project:
    """Creates a project."""
    return await write(projects, actor, ProjectCreation(new_id(), ProjectFields(name, FIELDS.description, FIELDS.color)))


def idempotency(key: str, request: str = "a request") -> Idempotency:
    return Idempotency(key, hashlib.sha256(request.encode()).digest())


async def log_of(database: Database, actor: Actor) -> list[tuple[int, int, bool, list[str]]]:
    """Returns the kind, the version and the changed fields of each change, and whether it is one of a project. Fails if the numbers have a gap."""
    rows = await database.fetch(
        "SELECT seq, kind, version, is_project, changed_fields FROM task.changes WHERE user_id = $1 ORDER BY seq", actor.user_id
    )
    counter = await database.fetchrow("SELECT last_seq FROM task.counters WHERE user_id = $1", actor.user_id)
    assert [row["seq"] for row in rows] == list(range(1, (counter["last_seq"] if counter else 0) + 1))
    return [tuple(row)[1:] for row in rows]
