"""The steps in terms of httpx, for both clients."""

import contextlib
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, Final

import httpx

from task_manager_client.errors import ConnectionFailed, NotConnected
from task_manager_client.steps import Reply, Request

DEFAULT_URL: Final = "http://localhost:8080"
VERSION: Final = version("task-manager-client")
USER_AGENT: Final = f"task-manager-client/{VERSION}"
# For each piece of an answer. The gateway's own limit for a call is 15 s.
TIMEOUT_SECONDS: Final = 20.0
CONNECT_SECONDS: Final = 5.0


def options(url: str, user_agent: str) -> dict[str, Any]:
    """Returns the arguments of both httpx clients."""
    return {"base_url": url, "headers": {"user-agent": user_agent}, "timeout": httpx.Timeout(TIMEOUT_SECONDS, connect=CONNECT_SECONDS)}


def built(client: httpx.Client | httpx.AsyncClient, request: Request) -> httpx.Request:
    """Returns the httpx request."""
    timeout = client.timeout if request.timeout is None else httpx.Timeout(request.timeout, connect=min(request.timeout, CONNECT_SECONDS))
    return client.build_request(
        request.method, request.path, params=request.query or None, headers=dict(request.headers), json=request.body, timeout=timeout
    )


def reply_of(response: httpx.Response, body: bytes) -> Reply:
    """Returns the answer."""
    return Reply(response.status_code, response.headers, body)


@contextlib.contextmanager
def failures_translated() -> Iterator[None]:
    """Raises ConnectionFailed in place of httpx's errors."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise NotConnected(f"there is no connection to the server ({_cause(error)})") from error
    except httpx.TimeoutException as error:
        raise ConnectionFailed("the server did not answer in time") from error
    except httpx.RequestError as error:
        raise ConnectionFailed(f"the connection broke before the whole answer arrived ({_cause(error)})") from error


def _cause(error: Exception) -> str:
    return str(error) or type(error).__name__
