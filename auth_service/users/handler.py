"""Maps the messages of the account RPCs to domain values and back. Must not access storage."""

from taskmanager.auth.v1 import auth_service_pb2, user_pb2

from auth_service.client import client_of
from auth_service.users.domain import WRITABLE_FIELDS
from auth_service.users.messages import to_user
from auth_service.users.service import UserService
from servicekit.rpc.call import Call
from servicekit.rpc.field_mask import fields_to_set


class UserHandler:
    """The RPCs of UserService and the account RPCs of AuthService. Each method is named after its RPC, in snake_case."""

    def __init__(self, service: UserService) -> None:
        self._service = service

    async def register(self, request: auth_service_pb2.RegisterRequest, call: Call) -> user_pb2.User:
        """Register."""
        return to_user(await self._service.register(email=request.email, password=request.password, name=request.name, client=client_of(call)))

    async def change_password(self, request: auth_service_pb2.ChangePasswordRequest, call: Call) -> auth_service_pb2.ChangePasswordResponse:
        """ChangePassword."""
        await self._service.change_password(
            call.identity,
            current_password=request.current_password,
            new_password=request.new_password,
            revoke_api_tokens=request.revoke_api_tokens,
            client=client_of(call),
        )
        return auth_service_pb2.ChangePasswordResponse()

    async def get_me(self, _: user_pb2.GetMeRequest, call: Call) -> user_pb2.User:
        """GetMe."""
        return to_user(await self._service.get_me(call.identity))

    async def update_me(self, request: user_pb2.UpdateMeRequest, call: Call) -> user_pb2.User:
        """UpdateMe."""
        name = request.user.name if "name" in fields_to_set(request.update_mask, request.user, WRITABLE_FIELDS) else None
        return to_user(await self._service.update_me(call.identity, name))

    async def delete_me(self, request: user_pb2.DeleteMeRequest, call: Call) -> user_pb2.DeleteMeResponse:
        """DeleteMe."""
        await self._service.delete_me(call.identity, request.password, client_of(call))
        return user_pb2.DeleteMeResponse()
