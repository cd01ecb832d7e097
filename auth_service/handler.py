"""taskmanager.auth.v1: maps messages to domain values and back. Knows protobuf, and nothing of storage."""

from datetime import UTC, datetime
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from taskmanager.auth.v1 import auth_service_pb2, event_service_pb2, user_pb2

from auth_service.domain import MAX_USER_AGENT_CHARACTERS, WRITABLE_FIELDS, Client, SessionDetails, TokenPair, User
from auth_service.service import AuthService, UserService
from servicekit.call import Call
from servicekit.errors import InvalidField
from servicekit.field_mask import fields_to_set
from servicekit.revocations import EventKind, EventSource


class AuthHandler:
    """The RPCs of AuthService, each named in snake_case."""

    def __init__(self, service: AuthService) -> None:
        self._service = service

    async def register(self, request: auth_service_pb2.RegisterRequest, call: Call) -> user_pb2.User:
        """Register."""
        return _user(await self._service.register(email=request.email, password=request.password, name=request.name, client=_client(call)))

    async def login(self, request: auth_service_pb2.LoginRequest, call: Call) -> auth_service_pb2.TokenResponse:
        """Login."""
        return _tokens(await self._service.login(email=request.email, password=request.password, client=_client(call)))

    async def refresh_token(self, request: auth_service_pb2.RefreshTokenRequest, call: Call) -> auth_service_pb2.TokenResponse:
        """RefreshToken."""
        return _tokens(await self._service.refresh_token(request.refresh_token, _client(call)))

    async def logout(self, request: auth_service_pb2.LogoutRequest, call: Call) -> auth_service_pb2.LogoutResponse:
        """Logout."""
        await self._service.logout(request.refresh_token, _client(call))
        return auth_service_pb2.LogoutResponse()

    async def list_sessions(self, _: auth_service_pb2.ListSessionsRequest, call: Call) -> auth_service_pb2.ListSessionsResponse:
        """ListSessions."""
        identity = call.identity
        sessions = await self._service.list_sessions(identity)
        return auth_service_pb2.ListSessionsResponse(sessions=[_session(session, identity.session_id) for session in sessions])

    async def revoke_session(self, request: auth_service_pb2.RevokeSessionRequest, call: Call) -> auth_service_pb2.RevokeSessionResponse:
        """RevokeSession."""
        await self._service.revoke_session(call.identity, UUID(request.session_id), _client(call))
        return auth_service_pb2.RevokeSessionResponse()

    async def change_password(self, request: auth_service_pb2.ChangePasswordRequest, call: Call) -> auth_service_pb2.ChangePasswordResponse:
        """ChangePassword."""
        await self._service.change_password(
            call.identity, current_password=request.current_password, new_password=request.new_password, client=_client(call)
        )
        return auth_service_pb2.ChangePasswordResponse()


class UserHandler:
    """The RPCs of UserService, each named in snake_case."""

    def __init__(self, service: UserService) -> None:
        self._service = service

    async def get_me(self, _: user_pb2.GetMeRequest, call: Call) -> user_pb2.User:
        """GetMe."""
        return _user(await self._service.get_me(call.identity))

    async def update_me(self, request: user_pb2.UpdateMeRequest, call: Call) -> user_pb2.User:
        """UpdateMe."""
        name = request.user.name if "name" in fields_to_set(request.update_mask, request.user, WRITABLE_FIELDS) else None
        if name == "":
            raise InvalidField.of("user.name", "must have 1 to 100 characters")
        return _user(await self._service.update_me(call.identity, name))

    async def delete_me(self, request: user_pb2.DeleteMeRequest, call: Call) -> user_pb2.DeleteMeResponse:
        """DeleteMe."""
        await self._service.delete_me(call.identity, request.password, _client(call))
        return user_pb2.DeleteMeResponse()


class EventHandler:
    """The RPCs of EventService, each named in snake_case."""

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
                kind=event.kind.value,  # type: ignore[arg-type]  # the numbers are the same ones
                user_id=str(event.user_id),
                session_id=str(event.session_id) if event.session_id else "",
                created_at=_timestamp(datetime.fromtimestamp(event.created_at, UTC)),
            )
            for event in page.events
        ]
        return event_service_pb2.ListEventsResponse(events=events, last_number=page.last_number, more=page.more)


def _client(call: Call) -> Client:
    user_agent = "".join(filter(str.isprintable, call.metadata.get("user-agent", "")))
    return Client(call.client_address, user_agent[:MAX_USER_AGENT_CHARACTERS], call.request_id)


def _user(user: User) -> user_pb2.User:
    return user_pb2.User(
        id=str(user.id), email=user.email, name=user.name, created_at=_timestamp(user.created_at), updated_at=_timestamp(user.updated_at)
    )


def _session(session: SessionDetails, current: UUID) -> auth_service_pb2.Session:
    return auth_service_pb2.Session(
        id=str(session.id),
        created_at=_timestamp(session.created_at),
        last_used_at=_timestamp(session.last_used_at),
        expires_at=_timestamp(session.expires_at),
        user_agent=session.user_agent,
        address=session.address,
        current=session.id == current,
    )


def _timestamp(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message


def _tokens(pair: TokenPair) -> auth_service_pb2.TokenResponse:
    return auth_service_pb2.TokenResponse(
        access_token=pair.access_token,
        token_type="Bearer",  # noqa: S106 - a scheme's name
        expires_in=pair.expires_in,
        refresh_token=pair.refresh_token,
    )
