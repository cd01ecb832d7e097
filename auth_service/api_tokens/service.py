"""The use cases of managing API tokens. Must not import grpc, protobuf, asyncpg or redis: Protocols describe what the use cases need."""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from auth_service.api_tokens.domain import MAX_API_TOKENS_PER_USER, ApiToken, NewApiToken
from auth_service.api_tokens.errors import ApiTokenNotFound
from auth_service.api_tokens.tokens import api_token_hash, hint_of, new_api_token
from auth_service.client import Client
from auth_service.security_log import SecurityEvent
from auth_service.users.service import Parts
from servicekit.completion import run_to_completion
from servicekit.identity import Identity


class ApiTokenRepository(Protocol):
    """Stores API tokens. Each method is one transaction, including its rows in the event log. All methods raise DependencyUnavailable."""

    async def insert_api_token(self, token_id: UUID, creator: Identity, token: NewApiToken, token_hash: bytes, hint: str, limit: int) -> ApiToken:
        """Inserts and returns the token. Raises TokenInvalid if the creator's session has ended or expired, or the account is gone.

        Raises TooManyApiTokens if the user has `limit` tokens that have not expired.
        """

    async def list_api_tokens(self, user_id: UUID) -> Sequence[ApiToken]:
        """Returns the user's tokens that have not expired, newest first."""

    async def delete_api_token(self, user_id: UUID, token_id: UUID) -> bool:
        """Deletes the user's token. Returns False if the user has no such token that has not expired."""


class ApiTokenService:
    """The use cases."""

    def __init__(self, repository: ApiTokenRepository, parts: Parts) -> None:
        self._repository = repository
        self._parts = parts

    async def create(self, identity: Identity, token: NewApiToken, client: Client) -> tuple[ApiToken, str]:
        """Creates an API token. Returns it with its text. Raises TokenInvalid, TooManyApiTokens."""
        return await run_to_completion(self._create(identity, token, client))

    async def _create(self, identity: Identity, token: NewApiToken, client: Client) -> tuple[ApiToken, str]:
        text = new_api_token()
        created = await self._repository.insert_api_token(
            self._parts.new_id(), identity, token, api_token_hash(text.encode()), hint_of(text), MAX_API_TOKENS_PER_USER
        )
        self._parts.security_log.record(SecurityEvent.API_TOKEN_CREATED, client, user_id=identity.user_id, session_id=created.id)
        return created, text

    async def list(self, identity: Identity) -> Sequence[ApiToken]:
        """Returns the caller's API tokens, newest first."""
        return await self._repository.list_api_tokens(identity.user_id)

    async def delete(self, identity: Identity, token_id: UUID, client: Client) -> None:
        """Deletes one of the caller's API tokens. Raises ApiTokenNotFound."""
        await run_to_completion(self._delete(identity, token_id, client))

    async def _delete(self, identity: Identity, token_id: UUID, client: Client) -> None:
        if not await self._repository.delete_api_token(identity.user_id, token_id):
            raise ApiTokenNotFound
        self._parts.security_log.record(SecurityEvent.API_TOKEN_DELETED, client, user_id=identity.user_id, session_id=token_id)
        await self._parts.announce()
