"""docker-compose.yml: compose accepts it, services start in the order of their health, and it contains no secret and no unknown setting."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from auth_service.settings import Settings as AuthSettings
from deploy import env
from gateway.settings import GatewaySettings
from servicekit.process.commands import MigrationSettings
from task_service.settings import Settings as TaskSettings
from task_service.settings import WorkerSettings
from tests.deploy.compose import FILE, ROOT, defaults, filled, passed_on, project, required, services
from tests.support import tools

OURS = {
    "gateway": GatewaySettings,
    "auth": AuthSettings,
    "task": TaskSettings,
    "task-worker": WorkerSettings,
    "migrate-auth": MigrationSettings,
    "migrate-task": MigrationSettings,
}
# Settings that the images and the networks fix: listening addresses, names, and files that are in no image.
SETTLED = {
    "BIND_HOST",
    "GRPC_PORT",
    "OPS_PORT",
    "OTEL_SERVICE_NAME",
    "GATEWAY_PORT",
    "ADMIN_PORT",
    "DESCRIPTORS",
    "TLS_PORT",
    "TLS_CERT_FILE",
    "TLS_KEY_FILE",
}
ONE_SHOT = {"migrate-auth", "migrate-task", "kibana-setup"}
# Their images contain no program for a health check.
NOTHING_TO_ASK_WITH = {"otel-collector", "log-collector", "jaeger"}
PROFILES = {
    "": {"gateway", "auth", "task", "task-worker", "migrate-auth", "migrate-task", "postgres", "redis"},
    "observability": {"otel-collector", "jaeger", "prometheus", "grafana"},
    "logging": {"log-collector", "elasticsearch", "kibana-setup", "kibana"},
}

each = pytest.mark.parametrize("name", services())


def test_compose_itself_takes_it(tmp_path: Path) -> None:
    loader = tools.required("compose-spec", "it is compose's own loader: go install github.com/compose-spec/compose-go/v2/cmd@v2.16.2")
    file = tmp_path / "docker-compose.yml"
    file.write_text(filled(dict.fromkeys(required(), "x" * 32)).replace("$", "$$"))
    ended = subprocess.run([loader, "docker-compose.yml"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr


def test_the_profiles_have_what_they_are_for() -> None:
    found = {profile: {name for name, service in services().items() if service.get("profiles", [""]) == [profile]} for profile in PROFILES}
    assert found == PROFILES


@each
def test_images_have_an_exact_tag(name: str) -> None:
    image = services()[name]["image"]
    tag = image.rpartition(":")[2]
    assert tag == "-latest}" if name in OURS else re.fullmatch(r"v?\d+(\.\d+)+", tag), image
    if name in OURS:
        assert "${IMAGE_TAG:-latest}" in image


@each
def test_a_service_says_how_it_is_or_ends(name: str) -> None:
    health = services()[name].get("healthcheck", {})
    if name in ONE_SHOT | NOTHING_TO_ASK_WITH:
        assert health == {"disable": True}
    elif name in OURS:
        # The image defines the test.
        assert "HEALTHCHECK" in (ROOT / services()[name].get("build", {}).get("dockerfile", "Dockerfile")).read_text()
        assert "test" not in health
    else:
        assert health["test"][0] in {"CMD", "CMD-SHELL"}
    if name not in ONE_SHOT:
        assert services()[name]["restart"] == "unless-stopped"


@each
def test_a_service_waits_for_what_it_needs_to_be_healthy_or_done(name: str) -> None:
    for needed, how in services()[name].get("depends_on", {}).items():
        expected = {"condition": "service_completed_successfully" if needed in ONE_SHOT else "service_healthy"}
        assert how == ({"condition": "service_started"} if needed in NOTHING_TO_ASK_WITH else expected)
        assert services()[needed].get("profiles", services()[name].get("profiles")) == services()[name].get("profiles"), "needs what may not be there"


def test_the_order_is_stores_then_migrations_then_services_then_gateway() -> None:
    needs = {name: set(services()[name].get("depends_on", {})) for name in PROFILES[""]}
    assert needs == {
        "postgres": set(),
        "redis": set(),
        "migrate-auth": {"postgres"},
        "migrate-task": {"postgres"},
        "auth": {"postgres", "redis", "migrate-auth"},
        "task": {"postgres", "redis", "migrate-task", "auth"},
        "task-worker": {"postgres", "redis", "migrate-task"},
        "gateway": {"auth", "task"},
    }
    assert services()["task"]["deploy"] == {"replicas": 2}


@pytest.mark.parametrize("name", OURS)
def test_every_setting_of_a_program_can_be_given_to_it_and_no_other(name: str) -> None:
    fields = {field.upper() for field in OURS[name].model_fields} - SETTLED
    if name == "migrate-auth":
        fields -= {"WORKER_ROLE"}  # auth_service has no worker
    if name == "task-worker":
        fields |= {"GRPC_PORT"}  # for the health check of the image, which otherwise asks the port of the service
    assert set(services()[name]["environment"]) == fields


@pytest.mark.parametrize("name", OURS)
def test_ours_can_write_nowhere_and_have_no_rights(name: str) -> None:
    service = services()[name]
    assert (service["read_only"], service["cap_drop"], service["security_opt"]) == (True, ["ALL"], ["no-new-privileges:true"])
    assert service.get("tmpfs", []) == (["/tmp:size=16m,mode=1777"] if name == "gateway" else [])
    assert not {"user", "privileged", "cap_add", "volumes"} & set(service)


def test_only_the_gateway_is_reached_from_outside() -> None:
    published = {name: service["ports"] for name, service in services().items() if "ports" in service}
    assert published.pop("gateway") == ["${GATEWAY_ADDRESS:-127.0.0.1}:${GATEWAY_PORT:-8080}:8080"]
    assert set(published) == {"jaeger", "prometheus", "grafana", "kibana"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_the_stores_are_reached_by_the_services_alone() -> None:
    assert project()["networks"]["data"] == {"internal": True}
    assert {name for name, service in services().items() if "data" in service["networks"]} == PROFILES[""] - {"gateway"}


def _values(found: Any) -> list[str]:
    if isinstance(found, dict):
        return [text for value in found.values() for text in _values(value)]
    return [text for value in found for text in _values(value)] if isinstance(found, list) else [str(found)]


@each
def test_no_secret_stands_in_it(name: str) -> None:
    for setting, value in services()[name].get("environment", {}).items():
        if re.search(r"PASSWORD|SECRET|TOKEN$|KEY$|AUTH$", setting) or re.search(r"://[^/@]*:[^/]*@", str(value)):
            assert re.search(r"\$\{[A-Z_]+:\?make it with `make env`\}", value), setting
    assert not [text for text in _values(services()[name]) if re.search(r"\w+://\w*:(?!\$\{)[^/@]+@", text)]


def test_what_must_be_set_is_what_make_env_makes() -> None:
    assert required() == set(env.SECRETS)


def test_every_variable_is_in_the_example_with_the_same_default() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert required() | set(defaults()) | passed_on() <= set(example)
    assert {name: example[name] for name in defaults()} == defaults()
    assert all(example[name] == "" for name in required())


@each
def test_what_is_mounted_is_there(name: str) -> None:
    for volume in services()[name].get("volumes", []):
        source = volume.partition(":")[0]
        if source.startswith("."):
            assert (ROOT / source).exists(), source
            assert volume.endswith(":ro")
        else:
            assert source in project()["volumes"] or source == "/var/lib/docker/containers"


def test_prometheus_takes_its_configuration() -> None:
    promtool = tools.required("promtool", "the Debian package prometheus has it")
    config = ROOT / "deploy" / "observability" / "prometheus.yaml"
    ended = subprocess.run([promtool, "check", "config", config], capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr


COLLECTORS = [ROOT / "deploy" / folder / "otel-collector.yaml" for folder in ("observability", "logging")]
KINDS = ("receivers", "processors", "exporters")
# Deprecated component names, for which the collector logs a warning. The current ones are file_log, otlp_http and, as an exporter, otlp_grpc.
DEPRECATED = {"filelog", "otlphttp"}


@pytest.mark.parametrize("file", COLLECTORS, ids=lambda file: file.parent.name)
def test_a_collector_uses_what_it_has_by_names_that_stay(file: Path) -> None:
    config = yaml.safe_load(file.read_text())
    assert set(config["service"]["extensions"]) == set(config["extensions"])
    for kind in KINDS:
        assert {name for pipeline in config["service"]["pipelines"].values() for name in pipeline[kind]} == set(config[kind])
    names = {name.partition("/")[0] for kind in (*KINDS, "extensions") for name in config[kind]}
    assert names & DEPRECATED == set()
    assert "otlp" not in {name.partition("/")[0] for name in config["exporters"]}


def test_it_has_one_way_to_name_a_variable() -> None:
    assert set(re.findall(r"(?<!\$)\$\{[^}:]*\}", FILE.read_text())) == set()
