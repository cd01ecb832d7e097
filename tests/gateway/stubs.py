"""Stub services for the generated protos, and a key server.

The stubs give answers that are hard to force with real services (slow, failing and huge ones) and record the requests that they receive.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

Behaviour = Callable[[Any, grpc.ServicerContext], Any]


class Messages:
    """The message classes of a descriptor set."""

    def __init__(self, descriptors: bytes) -> None:
        self._pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors).file:
            self._pool.Add(file)

    def method(self, path: str) -> Any:
        """Returns the descriptor of the method with this gRPC path."""
        return self._pool.FindMethodByName(path.removeprefix("/").replace("/", "."))

    def request(self, path: str) -> type[Message]:
        """Returns the class of a method's request."""
        return message_factory.GetMessageClass(self.method(path).input_type)

    def response(self, path: str) -> type[Message]:
        """Returns the class of a method's response."""
        return message_factory.GetMessageClass(self.method(path).output_type)


class StubService(grpc.GenericRpcHandler):
    """A service that answers every method of the descriptors with an empty message, unless `behave` sets another behavior."""

    def __init__(self, services: list[str], messages: Messages) -> None:
        self.port = 0
        self.calls: Counter[str] = Counter()
        self.metadata: dict[str, str] = {}
        self.requests: list[Any] = []
        self._behaviours: dict[str, Behaviour] = {}
        self._messages = messages
        self._health = health.HealthServicer()
        # Every stream also needs a thread.
        self._server = grpc.server(futures.ThreadPoolExecutor(64), options=[("grpc.max_receive_message_length", 4 * 1024 * 1024)])
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
        """Sets the status that the health service reports."""
        self._health.set("", health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING)

    def behave(self, path: str, behaviour: Behaviour) -> None:
        """Makes a method answer with the result of `behaviour(request, context)`."""
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

        def stream(request: Message, context: grpc.ServicerContext) -> Iterator[Any]:
            answer = unary(request, context)
            yield from [answer] if isinstance(answer, Message) else answer

        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, **codec)
        return grpc.unary_unary_rpc_method_handler(unary, **codec)


class KeyServer:
    """A stand-in for auth_service's ops HTTP server: /.well-known/jwks.json, /readyz, and /exchange, which `exchange` answers.

    `exchange` gets the headers of a request, and returns the status and the headers of the answer. `exchanges` has the requests.
    """

    def __init__(self) -> None:
        self.exchanges: list[tuple[str, str, HTTPMessage]] = []
        self.exchange: Callable[[HTTPMessage], tuple[int, dict[str, str]]] = lambda _: (401, {})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._generations = 0
        self.rotate()

    def rotate(self) -> None:
        """Replaces the key with a new one. The old key is no longer published."""
        self._generations += 1
        self.kid = f"key-{self._generations}"
        self._key = Ed25519PrivateKey.generate()
        public = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(self._key.public_key()))
        self._body = json.dumps({"keys": [{**public, "kid": self.kid, "alg": "EdDSA", "use": "sig"}]}).encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        keys = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                if self.path.startswith("/exchange"):
                    keys.exchanges.append((self.command, self.path, self.headers))
                    status, headers = keys.exchange(self.headers)
                    self.send_response(status)
                    for name, value in {**headers, "content-length": "0"}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    return
                body = {"/.well-known/jwks.json": keys._body, "/readyz": b"{}"}.get(self.path, b"")
                self.send_response(200 if body else 404)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
                pass

        return Handler

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def reset(self) -> None:
        """Refuses every API token again, and forgets the requests."""
        self.exchanges.clear()
        self.exchange = lambda _: (401, {})

    def token(self, **claims: Any) -> str:
        """Returns an access token in the form of auth_service's. A claim with the value None is left out."""
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
        return jwt.encode(payload, self._key, algorithm="EdDSA", headers={"kid": self.kid, "typ": "at+jwt"})
