"""`python -m bench.projects`: does a user with a million tasks in 1000 projects pay more for lists, moves and completions than one with ten thousand?

Both users are of the same system, and short rounds of both alternate. Each project has 1000 tasks: some repeat, and some are subtasks. The table
shows the CPU per call of both, and the ratio. It starts a system of its own, with fsync, and takes about ten minutes, mostly to create the tasks.
"""

import argparse
import asyncio
import random
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import grpc.aio
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from taskmanager.task.v1 import project_pb2, project_service_pb2, task_pb2, task_service_pb2

from bench.calls import PAGE_SIZE, SERVICE, Call, Calls, new_task
from bench.compare import figures, table
from bench.generator import Generator
from bench.jobs import Job, Request
from bench.measure import CallsFailed
from bench.rows import Row, Target, Turn
from bench.seeding import seed
from bench.side import addresses
from bench.system import ENVIRONMENT
from bench.users import Users
from devstack.config import HOST, StackConfig
from devstack.stack import Stack
from tests.support.accounts import Account

FEW, MANY = 10, 1000
# Of each project: tasks that repeat, other tasks, and subtasks of the first of them.
REPEATING, OTHERS, PARENTS, CHILDREN_EACH = 300, 500, 10, 20
CALLERS, SECONDS, SETTLE_SECONDS = 4, 0.5, 0.1
# More than the calls of a round: no task is completed twice.
CALLS_EACH: Final = 300
CREATE_PROJECT: Final = "/taskmanager.task.v1.ProjectService/CreateProject"


@dataclass(frozen=True, slots=True)
class Project:
    """The ids of a project and of its tasks."""

    id: str
    repeating: Sequence[str]
    others: Sequence[str]


async def _project(channel: grpc.aio.Channel, account: Account, number: int) -> Project:
    create: Any = channel.unary_unary(CREATE_PROJECT)
    request = project_service_pb2.CreateProjectRequest(project={"name": f"Project {number}"})
    answer = await create(request.SerializeToString(), metadata=account.metadata, timeout=20)
    project_id = project_pb2.Project.FromString(answer).id
    ids = await seed(channel, account, [_task(number, project_id) for number in range(REPEATING + OTHERS)])
    parents = ids[REPEATING : REPEATING + PARENTS]
    await seed(channel, account, [_task(REPEATING, project_id, parent_id) for parent_id in parents for _ in range(CHILDREN_EACH)])
    return Project(project_id, ids[:REPEATING], ids[REPEATING:])


def _task(number: int, project_id: str, parent_id: str = "") -> task_pb2.Task:
    task = new_task(number)
    task.project_id, task.parent_id = project_id, parent_id
    if number < REPEATING:
        task.recurrence.rrule = "FREQ=WEEKLY"
    return task


def _calls(account: Account, projects: Sequence[Project], rounds: int) -> list[Calls]:
    chance = random.Random(len(projects))
    count = rounds * CALLS_EACH

    def row(name: str, rpc: str, message: Callable[[Project], Message]) -> Calls:
        return Calls(name, tuple(_call(account, rpc, message(chance.choice(projects))) for _ in range(count)))

    repeating = [task_id for project in projects for task_id in project.repeating]
    completed = [_call(account, "UpdateTask", _complete(task_id)) for task_id in chance.sample(repeating, count)]
    return [
        row("ListTasks of a project, by position", "ListTasks", lambda found: _page(project_id=found.id)),
        row("ListTasks of a task's children", "ListTasks", lambda found: _page(parent_id=chance.choice(found.others[:PARENTS]))),
        row("MoveTask", "MoveTask", lambda found: _move(*chance.sample(found.others[PARENTS:], 2))),
        Calls("UpdateTask, completes and repeats", tuple(completed)),
    ]


def _page(**wanted: Any) -> Message:
    return task_service_pb2.ListTasksRequest(page_size=PAGE_SIZE, order_by="position", **wanted)


def _move(task_id: str, before_id: str) -> Message:
    return task_service_pb2.MoveTaskRequest(id=task_id, before_id=before_id)


def _complete(task_id: str) -> Message:
    task = task_pb2.Task(id=task_id, status=task_pb2.Task.COMPLETED)
    return task_service_pb2.UpdateTaskRequest(task=task, update_mask=FieldMask(paths=["status"]))


def _call(account: Account, rpc: str, message: Message) -> Call:
    return Call(Request("POST", SERVICE + rpc, account.id, message.SerializeToString()), Request("", "", account.id))


async def _prepared(stack: Stack, users: Users, projects: int, rounds: int) -> list[Row]:
    """Creates the tasks of both users. Returns the rows: the base is the user with few projects, the system the one with many."""
    found = addresses(stack)
    target = Target(found["ports"]["grpc"], {name: pid for name, pid in found["processes"].items() if name != "gateway"})
    calls = []
    async with grpc.aio.insecure_channel(f"{HOST}:{target.port}") as channel:
        for number, count in enumerate((FEW, projects)):
            made = []
            for each in range(count):
                await users.tokens()
                made.append(await _project(channel, users.accounts[number], each))
            calls.append(_calls(users.accounts[number], made, rounds))
    return [Row("gRPC", "grpc", Turn(target, few, users), Turn(target, many, users)) for few, many in zip(*calls, strict=True)]


async def _measure(generator: Generator, rows: Sequence[Row], rounds: int) -> None:
    """Adds the rounds. Each makes calls of its own, and the first one of each row does not count. Raises CallsFailed."""
    for number in range(rounds):
        step = -1 if number % 2 else 1
        for row in rows[::step]:
            for turn in (row.base, row.system)[::step]:
                requests = turn.calls.over(row.protocol)[number * CALLS_EACH :][:CALLS_EACH]
                job = Job("grpc", turn.target.port, CALLERS, SETTLE_SECONDS, SECONDS, turn.target.processes, await turn.users.tokens(), requests)
                result = await generator.run(job)
                if result.failures:
                    raise CallsFailed(f"{row.name}: {result.first_failure}")
                if number:
                    turn.rounds.append(result)


async def run(projects: int, rounds: int) -> Mapping[str, Any]:
    """Runs the measurement."""
    with tempfile.TemporaryDirectory(prefix="task-manager-projects-") as folder:
        config = StackConfig(data_dir=Path(folder) / "data", environment=ENVIRONMENT | {"BCRYPT_COST": "4"})
        async with Stack(config) as stack, Generator.running() as generator:
            users = await Users.create(stack.state.url, 2)
            rows = await _prepared(stack, users, projects, rounds)
            database = await asyncpg.connect(stack.state.database_url)
            await database.execute("VACUUM (ANALYZE) task.tasks")
            await database.close()
            await _measure(generator, rows, rounds)
    return {
        "settings": {"callers": CALLERS, "rounds": rounds - 1, "seconds": SECONDS},
        "versions": {"old": f"{FEW} projects", "new": f"{projects} projects"},
        "rows": [{"way": row.way, "calls": row.name, **figures(row)} for row in rows],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.projects", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--projects", type=int, default=MANY, help="the projects of the larger user (%(default)s), each with 1000 tasks")
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    try:
        sys.stdout.write(table(asyncio.run(run(options.projects, options.rounds))) + "\n")
    except CallsFailed as error:
        sys.exit(str(error))
