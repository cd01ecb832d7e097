"""Maps the messages of the session RPCs to domain values and back. Must not access storage."""

from uuid import UUID

from taskmanager.auth.v1 import auth_service_pb2

from auth_service.client import client_of
from auth_service.sessions.messages import to_session, to_tokens
from auth_service.sessions.service import SessionService
from servicekit.rpc.call import Call


class SessionHandler:
    """The session RPCs of AuthService. Each method is named after its RPC, in snake_case."""

    def __init__(self, service: SessionService) -> None:
        self._service = service

    async def login(self, request: auth_service_pb2.LoginRequest, call: Call) -> auth_service_pb2.TokenResponse:
        """Login."""
        return to_tokens(await self._service.login(email=request.email, password=request.password, client=client_of(call)))

    async def refresh_token(self, request: auth_service_pb2.RefreshTokenRequest, call: Call) -> auth_service_pb2.TokenResponse:
        """RefreshToken."""
        return to_tokens(await self._service.refresh_token(request.refresh_token, client_of(call)))

    async def logout(self, request: auth_service_pb2.LogoutRequest, call: Call) -> auth_service_pb2.LogoutResponse:
        """Logout."""
        await self._service.logout(request.refresh_token, client_of(call))
        return auth_service_pb2.LogoutResponse()

    async def list_sessions(self, _: auth_service_pb2.ListSessionsRequest, call: Call) -> auth_service_pb2.ListSessionsResponse:
        """ListSessions."""
        identity = call.identity
        sessions = await self._service.list_sessions(identity)
        return auth_service_pb2.ListSessionsResponse(sessions=[to_session(session, identity.session_id) for session in sessions])

    async def revoke_session(self, request: auth_service_pb2.RevokeSessionRequest, call: Call) -> auth_service_pb2.RevokeSessionResponse:
        """RevokeSession."""
        await self._service.revoke_session(call.identity, UUID(request.session_id), client_of(call))
        return auth_service_pb2.RevokeSessionResponse()
