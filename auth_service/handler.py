"""taskmanager.auth.v1.AuthService and UserService: map messages to domain values and back. Know protobuf, and nothing of storage."""

from taskmanager.auth.v1 import auth_service_pb2, user_pb2

from auth_service.domain import TokenPair, User
from auth_service.service import AuthService
from servicekit.call import Call


class AuthHandler:
    """The RPCs of AuthService, each named in snake_case."""

    def __init__(self, service: AuthService) -> None:
        self._service = service

    async def register(self, request: auth_service_pb2.RegisterRequest, _: Call) -> user_pb2.User:
        """Register."""
        return _user(await self._service.register(email=request.email, password=request.password, name=request.name))

    async def login(self, request: auth_service_pb2.LoginRequest, _: Call) -> auth_service_pb2.TokenResponse:
        """Login."""
        return _tokens(await self._service.login(email=request.email, password=request.password))

    async def refresh_token(self, request: auth_service_pb2.RefreshTokenRequest, _: Call) -> auth_service_pb2.TokenResponse:
        """RefreshToken."""
        return _tokens(await self._service.refresh_token(request.refresh_token))

    async def logout(self, request: auth_service_pb2.LogoutRequest, _: Call) -> auth_service_pb2.LogoutResponse:
        """Logout."""
        await self._service.logout(request.refresh_token)
        return auth_service_pb2.LogoutResponse()


class UserHandler:
    """The RPCs of UserService, each named in snake_case."""

    def __init__(self, service: AuthService) -> None:
        self._service = service

    async def get_me(self, _: user_pb2.GetMeRequest, call: Call) -> user_pb2.User:
        """GetMe."""
        return _user(await self._service.get_me(call.identity.user_id))


def _user(user: User) -> user_pb2.User:
    message = user_pb2.User(id=str(user.id), email=user.email, name=user.name)
    message.created_at.FromDatetime(user.created_at)
    message.updated_at.FromDatetime(user.updated_at)
    return message


def _tokens(pair: TokenPair) -> auth_service_pb2.TokenResponse:
    return auth_service_pb2.TokenResponse(
        access_token=pair.access_token,
        token_type="Bearer",  # noqa: S106 - a scheme's name
        expires_in=pair.expires_in,
        refresh_token=pair.refresh_token,
    )
