"""Maps the messages of WatchTasks to domain values and back. Must not access storage."""

import contextlib
from collections.abc import AsyncIterator

from taskmanager.task.v1 import task_service_pb2

from servicekit.rpc.call import Call
from task_service.feed.messages import to_event
from task_service.feed.service import FeedService


class FeedHandler:
    """The RPC WatchTasks of TaskService. The method is named after it, in snake_case."""

    def __init__(self, feed: FeedService) -> None:
        self._feed = feed

    async def watch_tasks(self, request: task_service_pb2.WatchTasksRequest, call: Call) -> AsyncIterator[task_service_pb2.WatchTasksResponse]:
        """WatchTasks."""
        async with contextlib.aclosing(self._feed.watch_tasks(call.identity, request.resume_token)) as events:
            async for event in events:
                yield to_event(event)
