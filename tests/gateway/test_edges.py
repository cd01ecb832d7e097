"""The other entry points of the gateway (TLS, gRPC-Web, reflection, the ops port), rate limits, logs and traces."""

import base64
import json
import socket
import ssl
import struct
import threading
import warnings
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.gateway import certificates
from tests.gateway.errors import assert_error, reason_of
from tests.gateway.grpc_web import frame, frames
from tests.gateway.stack import GET_TASK, LOGIN, Gateway, Stack, gateway_behind, routes, wait_until

TASK = "/api/v1/tasks/1"


def test_grpc_web(gateway: Gateway, stack: Stack) -> None:
    stack.behave(GET_TASK, lambda request, _: stack.messages.response(GET_TASK)(id=request.id))
    headers = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1", "origin": "https://app.example"}
    request = frame(stack.messages.request(GET_TASK)(id="7"))
    answer = gateway.request("POST", GET_TASK, content=request, headers=headers)
    (_, message), (flags, trailers) = frames(answer.content)
    assert stack.messages.response(GET_TASK).FromString(message).id == "7"
    assert flags == 128
    assert b"grpc-status:0" in trailers
    assert "grpc-status" in answer.headers["access-control-expose-headers"]
    refused = gateway.request("POST", GET_TASK, token=False, content=request, headers=headers)
    assert refused.headers["grpc-status"] == "16"
    assert refused.headers["grpc-message"] == "The call has no access token."


@pytest.mark.parametrize(
    ("path", "content", "code"),
    [(GET_TASK, struct.pack(">BI", 0, 4 * 1024 * 1024) + bytes(4 * 1024 * 1024), "8"), ("/taskmanager.task.v1.TaskService/Nope", b"", "12")],
)
def test_envoys_own_replies_have_the_same_status_over_grpc_web(gateway: Gateway, path: str, content: bytes, code: str) -> None:
    refused = gateway.request("POST", path, content=content, headers={"content-type": "application/grpc-web+proto", "x-grpc-web": "1"})
    assert (refused.status_code, refused.headers["grpc-status"]) == (200, code)


def test_grpc_web_text_that_is_none_is_the_clients_fault(gateway: Gateway) -> None:
    refused = gateway.request("POST", GET_TASK, content=b"!!!!", headers={"content-type": "application/grpc-web-text"})
    assert (refused.status_code, refused.headers["grpc-status"]) == (200, "3")


def test_grpc_web_text(gateway: Gateway, stack: Stack) -> None:
    headers = {"content-type": "application/grpc-web-text", "accept": "application/grpc-web-text"}
    answer = gateway.request("POST", GET_TASK, content=base64.b64encode(frame(stack.messages.request(GET_TASK)(id="7"))), headers=headers)
    assert answer.status_code == 200
    assert stack.requests()[0].id == "7"


def test_reflection_needs_no_token_and_names_every_service(gateway: Gateway) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(gateway.channel)
    (answer,) = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    assert {rpc.service for rpc in routes().rpcs} <= {service.name for service in answer.list_services_response.service}


@pytest.mark.parametrize("http2", [False, True])
def test_cleartext_http_1_and_2(gateway: Gateway, *, http2: bool) -> None:
    with httpx.Client(http1=not http2, http2=http2) as client:
        answer = client.get(f"{gateway.url}{TASK}", headers=gateway.bearer())
    assert (answer.status_code, answer.http_version) == (200, "HTTP/2" if http2 else "HTTP/1.1")


@pytest.mark.parametrize("protocol", ["TLS/1.2", "TLS/1.2, HTTP/2.0", "websocket", "h2c"])
def test_an_upgrade_is_an_offer_that_nobody_accepts(gateway: Gateway, protocol: str) -> None:
    """RFC 9110 §7.8: the answer is the one without the offer, and the connection stays open. Apache HttpClient 5.4 offers TLS with each request."""
    offer = {"connection": "upgrade", "upgrade": protocol}
    with httpx.Client() as client:  # a connection of its own
        for url, token, status in (
            (f"{gateway.url}/health", False, 200),
            (f"{gateway.url}{TASK}", True, 200),
            (f"{gateway.url}{TASK}", False, 401),
            (f"{gateway.url}/nothing", True, 404),
        ):
            answer = client.get(url, headers={**offer, **(gateway.bearer() if token else {})})
            assert answer.status_code == status
            assert "connection" not in answer.headers
        assert client.post(f"{gateway.url}/api/v1/tasks", json={"title": "a"}, headers={**offer, **gateway.bearer()}).status_code == 201
        assert client.get(f"{gateway.ops}/livez", headers=offer).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "token", "status"),
    [
        ("GET", TASK, True, 200),
        ("POST", "/api/v1/tasks", True, 201),
        ("POST", "/api/v1/auth/login", False, 200),
        ("GET", f"{TASK}?bogus=1", True, 400),
        ("GET", TASK, False, 401),
        ("GET", "/nothing", True, 404),
        ("GET", "/health", False, 200),
    ],
)
def test_browsers_and_caches_keep_nothing_and_show_nothing(gateway: Gateway, method: str, path: str, status: int, *, token: bool) -> None:
    """OWASP ASVS 5 §3.4, §14.3.2, RFC 6749 §5.1. It holds for answers of Envoy and of the services."""
    answer = gateway.request(method, path, token=token, **({"json": {}} if method == "POST" else {}))
    assert answer.status_code == status
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    # Without TLS this header has no effect. The gateway sends it only over TLS.
    assert "strict-transport-security" not in answer.headers


def test_tls(stack: Stack, tmp_path: Path) -> None:
    certificate, key = certificates.write(tmp_path)
    with gateway_behind(stack, tls_cert_file=certificate, tls_key_file=key) as gateway:
        port = gateway.settings.tls_port
        trust = ssl.create_default_context(cafile=str(certificate))
        for http2, version in ((True, "HTTP/2"), (False, "HTTP/1.1")):
            with httpx.Client(verify=trust, http2=http2) as client:
                answer = client.get(f"https://127.0.0.1:{port}{TASK}", headers=gateway.bearer())
                assert (answer.status_code, answer.http_version) == (200, version)
                assert answer.headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"
                assert client.get(f"https://127.0.0.1:{port}{TASK}").status_code == 401
        assert stack.metadata()["x-forwarded-proto"] == "https"
        with grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(certificate.read_bytes())) as channel:
            channel.unary_unary(LOGIN)(b"")
        trust.maximum_version = ssl.TLSVersion.TLSv1_2
        trust.minimum_version = ssl.TLSVersion.TLSv1_2
        assert _handshake(port, trust) == "TLSv1.2"
        old = ssl.create_default_context(cafile=str(certificate))
        old.set_ciphers("DEFAULT:@SECLEVEL=0")  # so that the gateway rejects the handshake, not the client
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            old.minimum_version = ssl.TLSVersion.TLSv1
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError, match=r"(?i)alert protocol version"):
            _handshake(port, old)


def _handshake(port: int, context: ssl.SSLContext) -> str | None:
    with socket.create_connection(("127.0.0.1", port)) as raw, context.wrap_socket(raw, server_hostname="127.0.0.1") as wrapped:
        return wrapped.version()


def _refilled_every(seconds: int) -> dict[str, str]:
    """A longer interval of the rate limit, so that a loaded machine sends the requests of a test within one interval."""
    return {"fill_interval: 1s": f"fill_interval: {seconds}s"}


def test_the_rate_limit_counts_each_address_apart(stack: Stack) -> None:
    with gateway_behind(stack, rate_limit_per_second=1, rate_limit_burst=3, trusted_hops=1, sooner=_refilled_every(3)) as gateway:
        for address in ("198.51.100.1", "198.51.100.2"):
            headers = {"x-forwarded-for": address}
            assert [gateway.request("GET", TASK, headers=headers).status_code for _ in range(4)] == [200, 200, 200, 429]
            answer = gateway.request("GET", TASK, token=False, headers=headers)
            assert_error(answer, 429, 8, "TOO_MANY_REQUESTS")
            assert answer.headers["retry-after"] == "1"
            assert not [name for name in answer.headers if name.startswith("x-envoy-")]
            assert {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retry_delay": "1s"} in answer.json()["details"]
            error = gateway.failure(GET_TASK, metadata=headers)
            assert (error.code(), reason_of(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_REQUESTS")
            assert not [name for name, _ in (*error.initial_metadata(), *error.trailing_metadata()) if name.startswith("x-envoy-")]
        assert gateway.request("GET", TASK, headers={"x-forwarded-for": f"{address}, 198.51.100.3"}).status_code == 200
        # The rate limit never applies to a probe.
        assert {gateway.http.get("/health", headers=headers).status_code for _ in range(9)} == {200}
        wait_until(lambda: gateway.request("GET", TASK, headers=headers).status_code == 200)


def test_an_address_cannot_be_made_up_without_trusted_hops(stack: Stack) -> None:
    with gateway_behind(stack, rate_limit_per_second=1, rate_limit_burst=3, sooner=_refilled_every(60)) as gateway:
        answers = [gateway.request("GET", TASK, headers={"x-forwarded-for": f"198.51.100.{number}"}).status_code for number in range(4)]
        assert answers == [200, 200, 200, 429]


def test_the_ops_port_knows_three_paths(gateway: Gateway) -> None:
    assert httpx.get(f"{gateway.ops}/livez").status_code == 200
    assert httpx.get(f"{gateway.ops}/readyz").status_code == 200
    metrics = httpx.get(f"{gateway.ops}/metrics")
    assert "envoy_cluster_upstream_rq" in metrics.text
    for path in ("/", "/stats", "/config_dump", "/quitquitquit", "/metrics/../config_dump", "/api/v1/tasks"):
        assert httpx.get(gateway.ops + path).status_code == 404
    assert httpx.post(f"{gateway.ops}/readyz").status_code == 404
    assert httpx.post(f"{gateway.ops}/metrics").status_code == 404


def test_the_ops_paths_are_not_on_the_clients_port(gateway: Gateway) -> None:
    for path in ("/metrics", "/livez", "/readyz", "/stats", "/config_dump"):
        assert gateway.request("GET", path).status_code == 404


def test_admin_is_on_loopback_alone(stack: Stack) -> None:
    with gateway_behind(stack, bind_host="0.0.0.0") as gateway:
        listeners = Path("/proc/net/tcp").read_text().splitlines()[1:]
        addresses = {int(line.split()[1].split(":")[1], 16): line.split()[1].split(":")[0] for line in listeners if line.split()[3] == "0A"}
        assert addresses[gateway.settings.gateway_port] == "00000000"
        assert addresses[gateway.settings.admin_port] == "0100007F"


def _logged(gateway: Gateway, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    def look() -> bool:
        lines = gateway.log.read_text().splitlines()
        found[:] = [entry for entry in (json.loads(line) for line in lines if line.startswith("{")) if "path" in entry and wanted(entry)]
        return bool(found)

    wait_until(look)
    return found[-1]


def test_the_access_log_tells_what_happened_and_no_secrets(gateway: Gateway) -> None:
    gateway.request("GET", f"{TASK}?id=secret-in-query", headers={"x-request-id": "logged-1", "user-agent": "tests"})
    entry = _logged(gateway, lambda entry: entry["request_id"] == "logged-1")
    expected = {
        "method": "GET",
        "path": TASK,
        "rpc": GET_TASK,
        "status": 200,
        "grpc_status": 0,
        "user_agent": "tests",
        "client_address": "127.0.0.1",
        "flags": "-",
    }
    assert expected.items() <= entry.items()
    assert entry["duration_ms"] >= 0
    assert entry["bytes_sent"] > 0
    assert entry["upstream"].startswith("127.0.0.1:")
    text = gateway.log.read_text()
    assert "secret-in-query" not in text
    assert "Bearer" not in text
    gateway.request("GET", TASK, token=False, headers={"x-request-id": "logged-2"})
    entry = _logged(gateway, lambda entry: entry["request_id"] == "logged-2")
    assert entry["status"] == 401
    assert "jwt_authn" in entry["detail"]


def _served(port: int) -> bytes:
    """Returns the certificate that the gateway presents, in DER."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain, context.wrap_socket(plain) as secured:
        certificate = secured.getpeercert(binary_form=True)
    assert certificate is not None
    return certificate


def test_a_rotated_certificate_is_served_without_a_restart(stack: Stack, tmp_path: Path) -> None:
    """As Kubernetes rotates a mounted Secret: the files are links through `..data`, a link to a folder that it replaces at once."""
    mounted = tmp_path / "tls"
    for version in ("1", "2", "broken", "3"):
        (mounted / version).mkdir(parents=True)
        certificates.write(mounted / version)
    (mounted / "broken" / "key.pem").write_bytes((mounted / "3" / "key.pem").read_bytes())
    (mounted / "..data").symlink_to("1")
    for name in ("cert.pem", "key.pem"):
        (mounted / name).symlink_to(f"..data/{name}")
    first, second, third = (ssl.PEM_cert_to_DER_cert((mounted / version / "cert.pem").read_text()) for version in ("1", "2", "3"))

    def rotate(version: str) -> None:
        (mounted / "next").symlink_to(version)
        (mounted / "next").rename(mounted / "..data")

    with gateway_behind(stack, tls_cert_file=mounted / "cert.pem", tls_key_file=mounted / "key.pem") as gateway:
        port = gateway.settings.tls_port
        assert _served(port) == first
        rotate("2")
        wait_until(lambda: _served(port) == second)
        # A key that does not fit: the log tells it, and the last certificate that fits is served.
        rotate("broken")
        wait_until(lambda: "KEY_VALUES_MISMATCH" in gateway.log.read_text())
        assert _served(port) == second
        rotate("3")
        wait_until(lambda: _served(port) == third)


class _Collector(grpc.GenericRpcHandler):
    """An OTLP receiver that stores the data it receives."""

    def __init__(self) -> None:
        self.received = b""
        self.came = threading.Event()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if handler_call_details.method != "/opentelemetry.proto.collector.trace.v1.TraceService/Export":
            return None

        def export(request: bytes, _: grpc.ServicerContext) -> bytes:
            self.received += request
            self.came.set()
            return b""

        return grpc.unary_unary_rpc_method_handler(export)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_traces_go_on_and_are_exported(stack: Stack, tmp_path: Path, scheme: str) -> None:
    collector = _Collector()
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=(collector,))
    certificate, key = certificates.write(tmp_path)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    port = server.add_secure_port("127.0.0.1:0", credentials) if scheme == "https" else server.add_insecure_port("127.0.0.1:0")
    server.start()
    trace = "0af7651916cd43dd8448eb211c80319c"
    try:
        with gateway_behind(
            stack,
            otel_exporter_otlp_endpoint=f"{scheme}://127.0.0.1:{port}",
            otel_exporter_otlp_certificate=certificate,
            otel_service_name="gateway-under-test",
        ) as gateway:
            sent = f"00-{trace}-b7ad6b7169203331-01"
            gateway.request("GET", TASK, headers={"traceparent": sent, "x-request-id": "traced-1"})
            got = stack.metadata()["traceparent"]
            assert got.startswith(f"00-{trace}-")
            assert got != sent
            assert _logged(gateway, lambda entry: entry["request_id"] == "traced-1")["trace_id"] == trace
            wait_until(lambda: bytes.fromhex(trace) in collector.received)
            assert b"gateway-under-test" in collector.received
    finally:
        server.stop(None)


def test_without_a_collector_no_trace_is_begun(gateway: Gateway, stack: Stack) -> None:
    gateway.request("GET", TASK)
    assert "traceparent" not in stack.metadata()
