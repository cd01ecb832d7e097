"""The gateway's settings, read from the environment."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

_MEBIBYTE: Final = 1024 * 1024


class SettingsError(ValueError):
    """One or more settings are wrong. The message has one line for each."""


@dataclass(frozen=True)
class Endpoint:
    """A host (a name or an address, IPv6 without brackets) and a TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses `host:port` or `[address]:port`. Raises ValueError if the text has another form."""
        parts = urlsplit(f"//{text}")
        if not parts.hostname or not parts.port or parts.netloc != text or parts.username is not None:
            raise ValueError(f"'{text}' is not host:port")
        return cls(parts.hostname, parts.port)


@dataclass(frozen=True, slots=True)
class Receiver(Endpoint):
    """An OTLP receiver, which speaks TLS if its URL begins with https."""

    tls: bool = False

    @property
    def kind(self) -> str:
        """The kind of the name that its certificate must contain."""
        try:
            ip_address(self.host)
        except ValueError:
            return "DNS"
        return "IP_ADDRESS"

    @classmethod
    def from_url(cls, text: str) -> Self | None:
        """Parses `http://host:port` or `https://host:port`. Returns None for an empty text, and raises ValueError for another form."""
        if not text:
            return None
        scheme, separator, rest = text.partition("://")
        if not separator or scheme not in ("http", "https"):
            raise ValueError("only http://host:port and https://host:port are supported")
        endpoint = Endpoint.parse(rest.rstrip("/"))
        return cls(endpoint.host, endpoint.port, tls=scheme == "https")


def _from_text(parse: Callable[[str], Any]) -> BeforeValidator:
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)


def _split(parse: Callable[[str], Any]) -> BeforeValidator:
    """Splits the text at its commas and parses each part."""
    return _from_text(lambda text: tuple(parse(part.strip()) for part in text.split(",") if part.strip()))


Port = Annotated[int, Field(ge=1, le=65535)]
Endpoints = Annotated[tuple[Endpoint, ...], _split(Endpoint.parse), Field(min_length=1)]
# `*`, or the scheme, host and port of a page (RFC 6454 section 6.2).
Origins = Annotated[tuple[Annotated[str, Field(pattern=r"^(\*|https?://[0-9A-Za-z._\-\[\]:]+)$")], ...], _split(str)]


class GatewaySettings(BaseModel):
    """Every setting of the gateway. The environment variable is the field's name in capitals. An empty variable counts as unset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gateway_port: Port = 8080
    bind_host: str = "0.0.0.0"  # noqa: S104 - clients outside the host must reach the gateway
    ops_port: Port = 9094
    admin_port: Port = 9901  # always on 127.0.0.1, because a client of this port can stop the gateway
    tls_port: Port = 8443
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None

    auth_grpc_endpoints: Endpoints = (Endpoint("localhost", 50051),)
    task_grpc_endpoints: Endpoints = (Endpoint("localhost", 50052),)
    # The canary, another version of task_service, and the percentage of calls that it gets. 100 switches over completely (blue/green), 0 switches
    # back.
    task_canary_endpoints: Annotated[tuple[Endpoint, ...], _split(Endpoint.parse)] = ()
    task_canary_weight: Annotated[int, Field(ge=0, le=100)] = 0
    jwks_endpoint: Annotated[Endpoint, _from_text(Endpoint.parse)] = Endpoint("localhost", 9091)
    # The ops ports of auth_service's replicas, which exchange API tokens. Empty: the host of JWKS_ENDPOINT, which can be a name with many addresses.
    exchange_endpoints: Annotated[tuple[Endpoint, ...], _split(Endpoint.parse)] = ()
    jwks_refresh_seconds: Annotated[int, Field(ge=1, le=60)] = 30  # shorter than auth_service's KEY_LEAD_SECONDS, in production at least 120
    token_issuer: str = "https://task-manager.local"  # noqa: S105 - a name, not a secret
    token_audience: str = "task-manager"  # noqa: S105 - a name, not a secret

    cors_allowed_origins: Origins = ()
    rate_limit_per_second: Annotated[int, Field(ge=0)] = 0  # 0 means no limit
    rate_limit_burst: Annotated[int, Field(ge=1)] = 100
    rate_limit_max_addresses: Annotated[int, Field(ge=1)] = 10_000  # beyond this number, Envoy drops the least recently used address
    trusted_hops: Annotated[int, Field(ge=0)] = 0
    request_timeout_seconds: Annotated[int, Field(ge=1)] = 15
    stream_idle_timeout_seconds: Annotated[int, Field(ge=1)] = 120  # more than twice the heartbeat interval of streams (45 s)
    connection_idle_seconds: Annotated[int, Field(ge=1)] = 75  # a connection without a call; longer than load balancers keep theirs (often 60 s)
    max_request_bytes: Annotated[int, Field(ge=1)] = 3 * _MEBIBYTE
    max_heap_bytes: Annotated[int, Field(ge=64 * _MEBIBYTE)] = 512 * _MEBIBYTE
    max_connections: Annotated[int, Field(ge=1)] = 10_000
    drain_delay_seconds: Annotated[float, Field(ge=0, le=300)] = 5.0  # from the failing readiness probe to the end of new connections
    shutdown_grace_seconds: Annotated[float, Field(gt=0, le=86_400)] = 10.0  # then the maximum wait for running calls

    docs_enabled: bool = True  # whether /docs shows the API reference; /openapi.json is always there

    otel_exporter_otlp_endpoint: Annotated[Receiver | None, _from_text(Receiver.from_url)] = None
    # The CAs that may have signed the receiver's certificate. The default is where the image has the public ones.
    otel_exporter_otlp_certificate: Path = Path("/etc/ssl/certs/ca-certificates.crt")
    otel_service_name: str = "gateway"
    tracing_sample_percent: Annotated[float, Field(ge=0, le=100)] = 100.0
    log_level: Annotated[Literal["trace", "debug", "info", "warning", "error", "critical"], _from_text(str.lower)] = "warning"
    descriptors: Path = Path("gen/descriptors.binpb")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Reads the settings from environment variables. Raises SettingsError, which names every wrong setting."""
        given = {name: environment[name.upper()] for name in cls.model_fields if environment.get(name.upper())}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            lines = (f"{str(found['loc'][0]).upper()}: {found['msg']}" if found["loc"] else found["msg"] for found in error.errors())
            raise SettingsError("\n".join(dict.fromkeys(lines))) from None

    @model_validator(mode="after")
    def _certificate_with_key(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("TLS_CERT_FILE and TLS_KEY_FILE go together: set both or neither")
        return self

    @model_validator(mode="after")
    def _canary_is_somewhere(self) -> Self:
        if self.task_canary_weight and not self.task_canary_endpoints:
            raise ValueError("TASK_CANARY_WEIGHT needs TASK_CANARY_ENDPOINTS: set both, or the weight to 0")
        return self

    @property
    def canary_weights(self) -> dict[str, int]:
        """The percentage of calls that the canary of each service gets. Services without a canary are left out."""
        return {"task_service": self.task_canary_weight} if self.task_canary_weight else {}

    @property
    def exchanges(self) -> tuple[Endpoint, ...]:
        """The endpoints that exchange API tokens."""
        return self.exchange_endpoints or (self.jwks_endpoint,)

    @property
    def upstreams(self) -> dict[str, tuple[Endpoint, ...]]:
        """The endpoints of each service and canary, by the name of its cluster."""
        stable = {"auth_service": self.auth_grpc_endpoints, "task_service": self.task_grpc_endpoints}
        return stable | {canary_of("task_service"): self.task_canary_endpoints} if self.canary_weights else stable

    @property
    def tls(self) -> bool:
        """Whether the gateway has a TLS listener."""
        return self.tls_cert_file is not None


def canary_of(cluster: str) -> str:
    """Returns the name of the cluster of a service's canary."""
    return f"{cluster}_canary"
