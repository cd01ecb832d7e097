"""Each image: its user, its labels, its contents, and its messages when it cannot run."""

import hashlib
import json
import re

import pytest

from tests.deploy.images.containers import IMAGES, Containers, Image, bases

pytestmark = pytest.mark.images

each = pytest.mark.parametrize("image", IMAGES.values(), ids=lambda image: image.name)
UID = 65532
# Envoy's base image exposes 10000, and a Dockerfile cannot undo that. Nothing listens on this port.
PORTS = {
    "auth-service": {"50051/tcp", "9091/tcp"},
    "task-service": {"50052/tcp", "9092/tcp", "50053/tcp", "9093/tcp"},
    "gateway": {"8080/tcp", "8443/tcp", "9094/tcp", "10000/tcp"},
}
# Modules that an image must not contain: those of the other programs and, for the gateway, packages and modules that it does not use.
FOREIGN = {
    "auth-service": ["task_service", "gateway"],
    "task-service": ["auth_service", "gateway"],
    "gateway": ["auth_service", "task_service", "servicekit", "grpc", "_ssl", "_hashlib", "_sqlite3"],
}
LOOK = """
import importlib.util, json, os, pathlib, shutil, sys, sysconfig
def writable(folder):
    try:
        pathlib.Path(folder, "x").write_text("x")
    except OSError as error:
        return error.strerror
    return "written"
sources = [path for root in ("/app", *(p for p in sys.path if p.startswith("/opt/venv"))) for path in pathlib.Path(root).rglob("*.py")]
print(json.dumps({
    "ids": [os.getuid(), os.getgid()],
    "places": {folder: writable(folder) for folder in ("/", "/app", "/opt/venv", "/tmp", "/run", "/var/tmp", "/dev/shm")},
    "programs": [name for name in ("pip", "pip3", "gcc", "cc", "g++", "make", "git", "uv") if shutil.which(name)],
    "packages": [str(path) for root in ("/usr", "/opt") for path in pathlib.Path(root).rglob("pip-*.dist-info")],
    "modules": [name for name in sys.argv[1:] if importlib.util.find_spec(name)],
    "uncompiled": [str(path) for path in sources if not pathlib.Path(importlib.util.cache_from_source(path)).exists()][:5],
    "sources": len(sources),
    "capabilities": [line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapPrm", "CapBnd", "CapAmb"))],
}))
"""

# Prints the programs in the gateway's image, and properties of its Python.
LOOK_AROUND = """
import hashlib, importlib.util, json, os, pathlib, sysconfig
folders = {pathlib.Path(name).resolve() for name in ("/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/opt/venv/bin")}
sources = list(pathlib.Path(sysconfig.get_path("stdlib")).rglob("*.py"))
print(json.dumps({
    "programs": [path.name for folder in folders if folder.is_dir() for path in folder.iterdir() if os.access(path, os.X_OK)],
    "uncompiled": [str(path) for path in sources if not pathlib.Path(importlib.util.cache_from_source(path)).exists()][:5],
    "sources": len(sources),
    "recorded": [path.name for path in pathlib.Path("/var/lib/dpkg/status.d").iterdir()],
    "sha1": hashlib.sha1().hexdigest(),
}))
"""


@each
def test_it_says_what_it_is(containers: Containers, image: Image) -> None:
    found = containers.inspect(image)
    config = found["Config"]
    assert config["User"] == f"{UID}:{UID}"
    assert config["StopSignal"] in {"SIGTERM", "15"}
    assert set(config["ExposedPorts"]) == PORTS[image.name]
    assert config["Cmd"] == ["run"]
    assert config["Entrypoint"][:2] == ["python", "-m"]
    labels = {
        name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items() if name.startswith("org.opencontainers")
    }
    assert labels.pop("description")
    assert labels == {"title": image.name, "version": "1.2.3", "revision": "abc", "licenses": "MIT", "vendor": "task-manager"}
    assert found["HealthCheck" if "HealthCheck" in found else "Healthcheck"]["Test"][0] == "CMD"
    print(f"\n{image.name}: {found['Size'] / 1e6:.0f} MB, built in {containers.build_seconds[image.name]:.0f} s")


@each
def test_it_holds_what_it_needs_and_no_more_and_can_write_nowhere(containers: Containers, image: Image) -> None:
    ended = containers.run(image, "-c", LOOK, "pip", "ensurepip", *FOREIGN[image.name], entrypoint="python")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["ids"] == [UID, UID]
    written = {place for place, how in found["places"].items() if how == "written"}
    # Every container engine provides a writable /dev/shm.
    assert written - {"/dev/shm"} == set(image.writable)
    assert (found["programs"], found["packages"], found["modules"], found["uncompiled"]) == ([], [], [], [])
    assert found["sources"] > 100
    assert {int(mask, 16) for mask in found["capabilities"]} == {0}


def test_the_gateway_is_the_envoy_image_with_a_python_and_no_other_program(containers: Containers) -> None:
    image = IMAGES["gateway"]
    base = containers.layers(bases()["ENVOY"])
    assert containers.layers(image.tag)[: len(base)] == base
    ended = containers.run(image, "-I", "-c", LOOK_AROUND, entrypoint="python")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    # The image has no shell, no package manager and no pip.
    assert {re.sub(r"[0-9.]+$", "", name) for name in found["programs"]} == {"envoy", "python"}
    assert (found["uncompiled"], found["sources"] > 100) == ([], True)
    # The package database must list these libraries, so that a scanner finds them.
    assert {"libgcc-s1", "zlib1g"} <= set(found["recorded"])
    # jinja2 needs SHA-1, which must work without OpenSSL.
    assert found["sha1"] == hashlib.sha1(usedforsecurity=False).hexdigest()


@each
def test_wrong_settings_end_with_2_and_are_all_named(containers: Containers, image: Image) -> None:
    wrong = {"GATEWAY_PORT": "x", "RATE_LIMIT_BURST": "0"} if image.name == "gateway" else {"REDIS_URL": "x", "OPS_PORT": "-1", "LOG_LEVEL": "loud"}
    ended = containers.run(image, environment=wrong)
    assert ended.returncode == 2, ended.stderr
    assert all(name in ended.stderr for name in wrong)
    if image.name != "gateway":
        assert "DATABASE_URL: is missing" in ended.stderr
        assert containers.run(image, "migrate").returncode == 2


def test_the_gateway_says_what_it_lacks_without_a_place_to_write(containers: Containers) -> None:
    image = IMAGES["gateway"]
    ended = containers.run(Image(image.name, image.build, image.settings))
    assert ended.returncode == 2
    assert "writable directory at /tmp" in ended.stderr


@each
def test_the_health_check_of_nothing_fails(containers: Containers, image: Image) -> None:
    module = "gateway" if image.name == "gateway" else "servicekit.process"
    environment = {"OPS_PORT": "1", "GRPC_PORT": "1"}
    ended = containers.run(image, "-m", f"{module}.healthcheck", "1", environment=environment, entrypoint="python")
    assert (ended.returncode, ended.stderr) == (1, "")


def test_the_gateway_only_writes_its_configuration_when_asked(containers: Containers) -> None:
    ended = containers.run(IMAGES["gateway"], "--output", "/dev/stdout")
    assert ended.returncode == 0, ended.stderr
    assert "static_resources:" in ended.stdout
