"""Creates the tasks of a user in batches, through the API's own write path."""

from collections.abc import Sequence
from typing import Any, Final

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp
from taskmanager.task.v1 import task_pb2, task_service_pb2

from tests.support.accounts import Account

CREATE_ALL: Final = "/taskmanager.task.v1.TaskService/BatchCreateTasks"
# The maximum of BatchCreateTasks.
TASKS_PER_BATCH: Final = 1000
BATCH_SECONDS: Final = 60.0
STATUSES: Final = (task_pb2.Task.PENDING, task_pb2.Task.IN_PROGRESS, task_pb2.Task.COMPLETED)
# 2030-01-31, a day on which every due task is due.
DUE_SECONDS: Final = 1_896_134_400


async def seed(channel: grpc.aio.Channel, account: Account, tasks: Sequence[task_pb2.Task]) -> Sequence[str]:
    """Creates the tasks and returns their ids."""
    create_all: Any = channel.unary_unary(CREATE_ALL)
    ids: list[str] = []
    for first in range(0, len(tasks), TASKS_PER_BATCH):
        requests = [task_service_pb2.CreateTaskRequest(task=task) for task in tasks[first : first + TASKS_PER_BATCH]]
        body = task_service_pb2.BatchCreateTasksRequest(requests=requests).SerializeToString()
        answer = task_service_pb2.BatchCreateTasksResponse.FromString(await create_all(body, metadata=account.metadata, timeout=BATCH_SECONDS))
        ids += (task.id for task in answer.tasks)
    return ids


def varied_task(number: int) -> task_pb2.Task:
    """Returns a task like those that the rivals' benchmark writes: 1 to 8 sentences, every status and priority, half of them with a due date."""
    task = task_pb2.Task(
        title=f"Task number {number}",
        description="What has to be done. " * (1 + number % 8),
        status=STATUSES[number % len(STATUSES)],
        priority=1 + number % 5,
    )
    if number % 2 == 0:
        task.due_date.CopyFrom(Timestamp(seconds=DUE_SECONDS))
    return task
