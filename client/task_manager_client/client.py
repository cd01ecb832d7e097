"""The blocking client. `async_client` has the same methods for asyncio; both only take the steps that the shared logic asks for."""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from task_manager_client import accounts, api_tokens, lists, projects, tasks, webhooks, wire
from task_manager_client.core import Core
from task_manager_client.described import described
from task_manager_client.errors import TaskManagerError
from task_manager_client.operation import Operation
from task_manager_client.profiles import Profile
from task_manager_client.retries import Retries
from task_manager_client.steps import Course, Emit, Emitting, NextLine, Open, Reply, Send, Step, Steps, Wait
from task_manager_client.tokens import MemoryStore, TokenStore, fixed

P = ParamSpec("P")
T = TypeVar("T")


def _call(make: Callable[P, Operation[T]]) -> "Callable[Concatenate[Client, P], T]":
    """Returns the method that makes a call."""

    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(self._core.call(make(*args, **kwargs)))

    return described(make, method)


def _steps(make: Callable[Concatenate[Core, P], Steps[T]]) -> "Callable[Concatenate[Client, P], T]":
    """Returns the method that takes the steps."""

    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(make(self._core, *args, **kwargs))

    return described(make, method, skip=1)


def _iterator(make: Callable[Concatenate[Core, P], Emitting[T]]) -> "Callable[Concatenate[Client, P], Generator[T]]":
    """Returns the method that iterates over the emitted values."""

    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> Generator[T]:
        return self._iterate(Course[T](make(self._core, *args, **kwargs)))

    return described(make, method, skip=1)


class Client:
    """A client of one task-manager, for any number of threads.

    url: the address of the gateway. tokens: where to keep the tokens of the session, by default in memory. access_token: a token to use instead.
    The methods raise TaskManagerError. Close the client, or use it in a `with` block.
    """

    def __init__(
        self,
        url: str = wire.DEFAULT_URL,
        *,
        tokens: TokenStore | None = None,
        access_token: str | None = None,
        retries: Retries | None = None,
        user_agent: str = wire.USER_AGENT,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._core = Core(fixed(access_token) if access_token else tokens or MemoryStore(), retries or Retries())
        self._http = httpx.Client(transport=transport, **wire.options(url, user_agent))

    @classmethod
    def from_profile(cls, name: str | None = None) -> Self:
        """Returns a client that uses the login of `tm`: the profile `name`, or TM_PROFILE, or the default one. Raises NotLoggedIn."""
        profile = Profile.current(name)
        return cls(profile.require_login().url, tokens=profile)

    register = _call(accounts.register)
    login = _steps(Core.login)
    logout = _steps(Core.logout)
    list_sessions = _call(accounts.list_sessions)
    revoke_session = _call(accounts.revoke_session)
    change_password = _call(accounts.change_password)
    get_me = _call(accounts.get_me)
    update_me = _call(accounts.update_me)
    delete_me = _steps(Core.delete_me)

    create_api_token = _call(api_tokens.create_api_token)
    list_api_tokens = _call(api_tokens.list_api_tokens)
    delete_api_token = _call(api_tokens.delete_api_token)
    exchange_api_token = _call(api_tokens.exchange_api_token)

    create_task = _call(tasks.create_task)
    get_task = _call(tasks.get_task)
    list_tasks = _call(tasks.list_tasks)
    iter_tasks = _iterator(lists.iter_tasks)
    update_task = _call(tasks.update_task)
    replace_task = _call(tasks.replace_task)
    delete_task = _call(tasks.delete_task)
    undelete_task = _call(tasks.undelete_task)
    move_task = _call(tasks.move_task)
    list_task_changes = _call(tasks.list_task_changes)
    iter_task_changes = _iterator(lists.iter_task_changes)
    batch_get_tasks = _call(tasks.batch_get_tasks)
    batch_create_tasks = _call(tasks.batch_create_tasks)
    batch_update_tasks = _call(tasks.batch_update_tasks)
    batch_delete_tasks = _call(tasks.batch_delete_tasks)
    watch = _iterator(lists.watch)

    create_project = _call(projects.create_project)
    get_project = _call(projects.get_project)
    list_projects = _call(projects.list_projects)
    iter_projects = _iterator(lists.iter_projects)
    update_project = _call(projects.update_project)
    delete_project = _call(projects.delete_project)
    undelete_project = _call(projects.undelete_project)
    archive_project = _call(projects.archive_project)
    unarchive_project = _call(projects.unarchive_project)
    move_project = _call(projects.move_project)
    create_webhook = _call(webhooks.create_webhook)
    get_webhook = _call(webhooks.get_webhook)
    list_webhooks = _call(webhooks.list_webhooks)
    update_webhook = _call(webhooks.update_webhook)
    delete_webhook = _call(webhooks.delete_webhook)
    rotate_webhook_secret = _call(webhooks.rotate_webhook_secret)
    test_webhook = _call(webhooks.test_webhook)
    list_webhook_deliveries = _call(webhooks.list_webhook_deliveries)

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        course = Course[T](steps)
        for _ in self._iterate(course):
            pass
        result: T = course.result
        return result

    def _iterate(self, course: Course[T]) -> Generator[T]:
        with contextlib.closing(course), contextlib.closing(_Wire(self._http, self._run)) as connection:
            while (step := course.next()) is not None:
                if isinstance(step, Emit):
                    yield step.value
                    continue
                try:
                    course.answer = connection.take(step)
                except TaskManagerError as error:
                    course.failure = error


class _Wire:
    """Takes steps by blocking."""

    def __init__(self, http: httpx.Client, run: Callable[[Steps[Any]], Any]) -> None:
        self._http = http
        self._run = run
        self._stream: httpx.Response | None = None
        self._lines: Iterator[str] = iter(())

    def take(self, step: Step) -> Any:
        """Takes a step and returns its result. Raises ConnectionFailed, and what Shielded steps raise."""
        match step:
            case Wait():
                time.sleep(step.seconds)
                return None
            case Send():
                with wire.failures_translated():
                    response = self._http.send(wire.built(self._http, step.request))
                return wire.reply_of(response, response.content)
            case Open():
                return self._open(step)
            case NextLine():
                with wire.failures_translated():
                    return next(self._lines, None)
            case _:
                return self._run(step.steps)

    def _open(self, step: Open) -> Reply:
        self.close()
        with wire.failures_translated():
            response = self._stream = self._http.send(wire.built(self._http, step.request), stream=True)
            body = response.read() if response.is_error else b""
        self._lines = response.iter_lines()
        return wire.reply_of(response, body)

    def close(self) -> None:
        """Closes the open stream."""
        if self._stream is not None:
            self._stream.close()
