"""Maps the messages of the RPCs of API tokens to domain values and back. Must not access storage."""

from uuid import UUID

from taskmanager.auth.v1 import api_token_service_pb2, auth_service_pb2

from auth_service.api_tokens.exchange import Exchange
from auth_service.api_tokens.messages import from_api_token, to_api_token, to_exchanged
from auth_service.api_tokens.service import ApiTokenService
from auth_service.client import client_of
from servicekit.rpc.call import Call


class ApiTokenHandler:
    """The RPCs of ApiTokenService. Each method is named after its RPC, in snake_case."""

    def __init__(self, service: ApiTokenService) -> None:
        self._service = service

    async def create_api_token(
        self, request: api_token_service_pb2.CreateApiTokenRequest, call: Call
    ) -> api_token_service_pb2.CreateApiTokenResponse:
        """CreateApiToken."""
        created, text = await self._service.create(call.identity, from_api_token(request.api_token), client_of(call))
        return api_token_service_pb2.CreateApiTokenResponse(api_token=to_api_token(created), token=text)

    async def list_api_tokens(self, _: api_token_service_pb2.ListApiTokensRequest, call: Call) -> api_token_service_pb2.ListApiTokensResponse:
        """ListApiTokens."""
        return api_token_service_pb2.ListApiTokensResponse(api_tokens=map(to_api_token, await self._service.list(call.identity)))

    async def delete_api_token(
        self, request: api_token_service_pb2.DeleteApiTokenRequest, call: Call
    ) -> api_token_service_pb2.DeleteApiTokenResponse:
        """DeleteApiToken."""
        await self._service.delete(call.identity, UUID(request.id), client_of(call))
        return api_token_service_pb2.DeleteApiTokenResponse()


class ExchangeHandler:
    """The RPC of AuthService that exchanges an API token."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def exchange_api_token(self, request: auth_service_pb2.ExchangeApiTokenRequest, call: Call) -> auth_service_pb2.ExchangeApiTokenResponse:
        """ExchangeApiToken."""
        return to_exchanged(await self._exchange.exchange(request.api_token, client_of(call)))
