"""Maps the messages of taskmanager.auth.v1.EventService to domain values and back. Must not access storage."""

from datetime import UTC, datetime

from taskmanager.auth.v1 import event_service_pb2

from servicekit.access.revocations import EventKind, EventSource
from servicekit.rpc.call import Call
from servicekit.rpc.timestamps import to_timestamp


class EventHandler:
    """The RPCs of EventService. Each method is named after its RPC, in snake_case."""

    def __init__(self, source: EventSource) -> None:
        self._source = source

    async def list_events(self, request: event_service_pb2.ListEventsRequest, _: Call) -> event_service_pb2.ListEventsResponse:
        """ListEvents."""
        page = await self._source.list_events(
            after=request.after,
            max_age_seconds=request.max_age.ToTimedelta().total_seconds() if request.HasField("max_age") else None,
            kind=EventKind(request.kind) if request.kind else None,
        )
        events = [
            event_service_pb2.Event(
                number=event.number,
                kind=event.kind.value,  # type: ignore[arg-type]  # both enums use the same numbers
                user_id=str(event.user_id),
                session_id=str(event.session_id) if event.session_id else "",
                created_at=to_timestamp(datetime.fromtimestamp(event.created_at, UTC)),
            )
            for event in page.events
        ]
        return event_service_pb2.ListEventsResponse(events=events, last_number=page.last_number, more=page.more, epoch=page.epoch)
