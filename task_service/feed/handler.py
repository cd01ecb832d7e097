"""Maps the messages of WatchTasks and ListTaskChanges to domain values and back. Must not access storage."""

import contextlib
from collections.abc import AsyncIterator
from uuid import UUID

from taskmanager.task.v1 import task_service_pb2

from servicekit.rpc.call import Call
from task_service.feed.messages import to_event, to_history
from task_service.feed.service import FeedService


class FeedHandler:
    """The RPCs WatchTasks and ListTaskChanges of TaskService. Each method is named after its RPC, in snake_case."""

    def __init__(self, feed: FeedService) -> None:
        self._feed = feed

    async def watch_tasks(self, request: task_service_pb2.WatchTasksRequest, call: Call) -> AsyncIterator[task_service_pb2.WatchTasksResponse]:
        """WatchTasks."""
        watching = self._feed.watch_tasks(call.identity, request.resume_token, show_projects=request.show_projects)
        async with contextlib.aclosing(watching) as events:
            async for event in events:
                yield to_event(event)

    async def list_task_changes(self, request: task_service_pb2.ListTaskChangesRequest, call: Call) -> task_service_pb2.ListTaskChangesResponse:
        """ListTaskChanges."""
        history = await self._feed.list_task_changes(call.identity.user_id, UUID(request.id), request.page_size, request.page_token)
        return to_history(history)
