"""Renders Envoy's configuration from the template, the settings and the descriptor set."""

import base64
import json
from pathlib import Path
from typing import Any, Final, cast

import jinja2
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.message import Message

from gateway import certificate, conditions, uploads
from gateway.public_files import MissingFile, openapi, page
from gateway.replies import DIRECT_RESPONSE, LOCAL_REPLIES, NO_QUERY, grpc_codes, has_status
from gateway.routes import DescriptorError, RouteTable, read_routes
from gateway.settings import Endpoint, GatewaySettings, SettingsError, canary_of

__all__ = ["DescriptorError", "Endpoint", "GatewaySettings", "SettingsError", "envoy_arguments", "render"]

_HERE: Final = Path(__file__).resolve().parent


def render(settings: GatewaySettings, descriptors: Path | None = None) -> str:
    """Returns Envoy's bootstrap configuration as YAML. `descriptors` overrides the descriptor set of the settings.

    The descriptors are embedded in the text, so Envoy needs no other files, except those of Swagger UI, and for TLS the certificate, its key, and the
    file of certificate.py.

    Raises DescriptorError if the descriptor set cannot be read, a method in it lacks the access option, or the settings have no endpoints for one of
    its services, and SettingsError if the installation lacks a file of the API reference.
    """
    try:
        content = (descriptors or settings.descriptors).read_bytes()
    except OSError as error:
        raise DescriptorError(f"DESCRIPTORS: {error}") from error
    routes = read_routes(content)
    unknown = set(routes.clusters) - set(settings.upstreams)
    if unknown:
        raise DescriptorError(f"there are no endpoints for {', '.join(sorted(unknown))}")
    try:
        files = (openapi(content), *(page() if settings.docs_enabled else ()))
    except MissingFile as error:
        raise SettingsError(str(error)) from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - YAML, not HTML: every value goes through tojson
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("envoy.yaml.j2").render(
        settings=settings,
        routes=routes,
        replies=LOCAL_REPLIES,
        has_status=has_status,
        canary_of=canary_of,
        conditions=conditions,
        uploads=uploads,
        public_routes=lambda tls: [route for file in files for route in file.routes(tls=tls)],
        direct_response=DIRECT_RESPONSE,
        certificate=certificate,
        descriptor_set=base64.b64encode(_for_transcoder(content)).decode(),
        lua=_lua(),
        times_lua=_times_lua(routes),
        api_tokens_lua=(_HERE / "api_tokens.lua").read_text(encoding="utf-8"),
        exchange_request=_exchange_request(settings.exchanges[0].host),
        transcoder_errors=(_HERE / "transcoder_errors.lua").read_text(encoding="utf-8"),
        no_query=NO_QUERY,
    )


def _lua() -> str:
    codes = ", ".join(f'["{status}"] = "{code}"' for status, code in grpc_codes().items())
    return f"local GRPC_CODES = {{ {codes} }}\n" + (_HERE / "unusual.lua").read_text(encoding="utf-8")


def _times_lua(routes: RouteTable) -> str:
    names = sorted({name for rpc in routes.rpcs for name in rpc.times})
    return f"local TIMES = {{ {', '.join(f'{name} = true' for name in names)} }}\n" + (_HERE / "times.lua").read_text(encoding="utf-8")


def _exchange_request(host: str) -> str:
    authority = json.dumps(f"[{host}]" if ":" in host else host)
    return (
        "function envoy_on_request(handle)\n"
        f'  handle:headers():replace(":authority", {authority})\n'
        '  handle:headers():replace(":method", "GET")\n'
        "end\n"
    )


def envoy_arguments(settings: GatewaySettings, config_file: Path) -> list[str]:
    """Returns the command line arguments of Envoy. They hold the options that its configuration file cannot."""
    log = ["--log-level", settings.log_level, "--file-flush-interval-msec", "1000"]  # writes access log lines within 1 s; the default is 10 s
    drain = ["--drain-time-s", "10", "--drain-strategy", "immediate"]
    return ["--config-path", str(config_file), *log, *drain]


def _for_transcoder(content: bytes) -> bytes:
    """Returns the descriptor set with what the transcoder reads: without comments and positions, and of the custom options only `google.api.http`.

    The transcoder reads the options of a message anew for each answer.
    """
    files = descriptor_pb2.FileDescriptorSet.FromString(content)
    for file in files.file:
        file.ClearField("source_code_info")
    files.DiscardUnknownFields()
    _clear_custom_options(files)
    return files.SerializeToString()


def _clear_custom_options(message: Message) -> None:
    for field, value in message.ListFields():
        if field.is_extension:
            if field.full_name != annotations_pb2.http.full_name:
                message.ClearExtension(cast("Any", field))  # the stubs do not know that this descriptor is an extension's
        elif field.message_type is not None:
            for part in value if field.is_repeated else (value,):
                _clear_custom_options(part)
