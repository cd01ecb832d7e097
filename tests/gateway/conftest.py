"""The stack of the gateway's tests: a real Envoy in front of stub services, one for the whole run."""

import secrets
from collections.abc import Iterator

import pytest

from tests.gateway.stack import Gateway, Stack, gateway_behind


@pytest.fixture(scope="package")
def _stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack.started(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture
def stack(_stack: Stack) -> Iterator[Stack]:
    """The stub services and the key server. After each test the stubs return to their default behavior."""
    yield _stack
    _stack.reset()


@pytest.fixture(scope="package")
def _gateway(_stack: Stack) -> Iterator[Gateway]:
    with gateway_behind(_stack, cors_allowed_origins="https://app.example", request_timeout_seconds=2) as gateway:
        yield gateway


@pytest.fixture
def gateway(_gateway: Gateway, stack: Stack) -> Gateway:
    """The gateway that most tests share: two replicas of task_service, one of auth_service, CORS for https://app.example, a timeout of 2 s."""
    return _gateway


@pytest.fixture
def token() -> str:
    """An API token of the test's own, because the gateway keeps the access tokens of the others for some seconds."""
    return f"tm_{secrets.token_hex(24)}0"


@pytest.fixture
def api_token(token: str) -> dict[str, str]:
    """The headers with the API token."""
    return {"authorization": f"Bearer {token}"}


@pytest.fixture
def accepted(stack: Stack) -> str:
    """Exchanges every API token. Returns the access token."""
    access_token = stack.keys.token(scope="tasks:read")
    stack.keys.exchange = lambda _: (200, {"authorization": f"Bearer {access_token}"})
    return access_token
