"""Callers that cancel a call: if the call has changed something all the same, the service logs it and notifies the other processes."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from auth_service.keys.ring import KeyRing
from auth_service.sessions.domain import REFRESH_GRACE_SECONDS
from auth_service.users.domain import User
from auth_service.users.service import UserService
from servicekit.stores.postgres import Database
from tests.auth_service.conftest import (
    CLIENT,
    PASSWORD,
    Accounts,
    AllParts,
    Announcements,
    AuthService,
    change,
    identity_of,
    log_in,
    register,
    service_of,
)

WITHIN_SECONDS = 10.0


class Late:
    """A repository whose answer to one method is late: the transaction has been committed, but the caller does not know it yet."""

    def __init__(self, repository: Accounts, method: str) -> None:
        self._repository = repository
        self._method = method
        self.committed, self.answered = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return self._answer_late if name == self._method else getattr(self._repository, name)

    async def _answer_late(self, *args: Any, **kwargs: Any) -> Any:
        answer = await getattr(self._repository, self._method)(*args, **kwargs)
        self.committed.set()
        await self.answered.wait()
        return answer


class Scene:
    """A user with two sessions, and the services over the repository with the late answer."""

    def __init__(self, parts: AllParts, ring: KeyRing, database: Database, method: str) -> None:
        self.late = Late(parts.repository, method)
        self._parts, self._ring, self._database = parts, ring, database
        late = replace(parts, repository=cast("Accounts", self.late))
        self.service, self.users = service_of(late, ring), UserService(late.repository, late)

    async def begin(self) -> None:
        service: AuthService = service_of(self._parts, self._ring)
        self.user: User = await register(service)
        self.pair, self.other = [await log_in(service, self.user) for _ in range(2)]
        self.identity = identity_of(self.pair)

    async def reuse(self) -> None:
        await service_of(self._parts, self._ring).refresh_token(self.pair.refresh_token, CLIENT)
        sql = "UPDATE auth.refresh_tokens SET used_at = used_at - make_interval(secs => $2) WHERE session_id = $1"
        await self._database.fetchrow(sql, self.identity.session_id, REFRESH_GRACE_SECONDS)
        await self.service.refresh_token(self.pair.refresh_token, CLIENT)


Act = Callable[[Scene], Awaitable[object]]
# For each logged event: the action that causes it, and the repository method that carries it out.
ACTS: dict[str, tuple[Act, str]] = {
    "account_created": (lambda s: register(s.service), "insert_user"),
    "login_succeeded": (lambda s: log_in(s.service, s.user), "insert_session"),
    "refresh_token_reused": (Scene.reuse, "use_refresh_token"),
    "logged_out": (lambda s: s.service.logout(s.pair.refresh_token, CLIENT), "end_session_of"),
    "session_revoked": (lambda s: s.service.revoke_session(s.identity, identity_of(s.other).session_id, CLIENT), "end_session"),
    "password_changed": (lambda s: change(s.service, s.identity), "change_password"),
    "account_deleted": (lambda s: s.users.delete_me(s.identity, PASSWORD, CLIENT), "delete_user"),
}


@pytest.mark.parametrize("event", ACTS)
async def test_what_a_caller_did_who_left_is_logged_and_told(
    event: str, parts: AllParts, ring: KeyRing, database: Database, announcements: Announcements
) -> None:
    act, method = ACTS[event]
    scene = Scene(parts, ring, database, method)
    await scene.begin()
    with capture_logs() as logs:
        call = asyncio.ensure_future(act(scene))
        await asyncio.wait_for(scene.late.committed.wait(), WITHIN_SECONDS)
        call.cancel()
        await asyncio.sleep(0.02)
        scene.late.answered.set()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert [line["security_event"] for line in logs] == [event]
    assert announcements.count == (event not in {"account_created", "login_succeeded"})
