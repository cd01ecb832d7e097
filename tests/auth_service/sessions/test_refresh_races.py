"""Refreshes that race with the end of their session: whichever comes first, no token of the session works afterwards."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

import pytest

from auth_service.users.domain import Credentials
from tests.auth_service.conftest import CredentialsFactory, Storage, token_hash

T = TypeVar("T")

AT_ONCE = 4
# The time from the refreshes to the end of the session; negative if the end comes first.
BEHIND_SECONDS = (0.003, 0.002, 0.001, 0.0005, 0, 0, 0, -0.0005, -0.001, -0.002, -0.003)

End = Callable[[Storage, Credentials, UUID, bytes], Awaitable[object]]
ENDS: dict[str, End] = {
    "Logout": lambda storage, _, __, token: storage.accounts.end_session_of(token),
    "RevokeSession": lambda storage, user, session, _: storage.accounts.end_session(user.user_id, session),
    "ChangePassword": lambda storage, user, _, __: storage.accounts.change_password(user, "hash 2", UUID(int=0)),
    "DeleteMe": lambda storage, user, _, __: storage.accounts.delete_user(user),
    "idle expiry": lambda storage, _, session, __: storage.expire(session),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_no_refresh_carries_on_a_session_that_has_ended(end: End, storage: Storage, new_credentials: CredentialsFactory) -> None:
    for behind in BEHIND_SECONDS:
        user, first = await new_credentials(), token_hash()
        session = await storage.begin(user, first)
        successors = [token_hash() for _ in range(AT_ONCE)]
        refreshes = (_after(-behind, storage.use(first, new=successor)) for successor in successors)
        await asyncio.gather(*refreshes, _after(behind, end(storage, user, session, first)))
        assert [await storage.use(token) for token in (first, *successors)] == [None] * (AT_ONCE + 1)
        assert await storage.live(user) == []


async def _after(seconds: float, act: Awaitable[T]) -> T:
    await asyncio.sleep(max(0.0, seconds))
    return await act
