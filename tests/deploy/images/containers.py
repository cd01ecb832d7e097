"""Builds and runs the images with container-lab and podman."""

import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auth_service.settings import Settings as AuthSettings
from gateway.settings import GatewaySettings
from servicekit.process.commands import MigrationSettings
from task_service.settings import Settings as TaskSettings

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Image:
    """One of our images: how to build it, and the settings of its program."""

    name: str
    build: tuple[str, ...]
    settings: tuple[Any, ...]
    writable: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        """The tag that container-lab gives to the image."""
        return f"localhost/{self.name}"

    @property
    def variables(self) -> list[str]:
        """The environment variables of its settings, except the one that the image sets."""
        return sorted({name.upper() for settings in self.settings for name in settings.model_fields} - {"DESCRIPTORS"})


IMAGES = {
    "auth_service": Image("auth-service", ("--target", "auth-service"), (AuthSettings, MigrationSettings)),
    "task_service": Image("task-service", ("--target", "task-service"), (TaskSettings, MigrationSettings)),
    "gateway": Image("gateway", ("-f", "gateway/Dockerfile"), (GatewaySettings,), ("/tmp",)),
}


def bases() -> dict[str, str]:
    """Returns the base images of the Dockerfiles: PYTHON and ENVOY."""
    text = "".join((ROOT / name).read_text() for name in ("Dockerfile", "gateway/Dockerfile"))
    return dict(re.findall(r"^ARG (\w+)_IMAGE=(\S+)$", text, re.MULTILINE))


class Containers:
    """The images and containers of one test run. `label` marks its containers."""

    def __init__(self, lab: Path, label: str, folder: Path) -> None:
        self._lab = lab
        self._label = f"task-manager-test={label}"
        self._folder = folder
        self.build_seconds: dict[str, float] = {}

    def build(self, image: Image, context: Path) -> None:
        """Builds an image. --format docker, because the OCI format has no health check; --layers, so that the images share their first layers."""
        arguments = ["--format", "docker", "--layers", "--build-arg", "VERSION=1.2.3", "--build-arg", "REVISION=abc"]
        began = time.monotonic()
        log = self._folder / f"{image.name}.build.log"
        with log.open("wb") as output:
            command = [self._lab, "build", image.tag, context, *image.build, *arguments]
            ended = subprocess.run(command, cwd=context, stdout=output, stderr=subprocess.STDOUT, check=False, timeout=1200)
        assert ended.returncode == 0, log.read_text()[-4000:]
        self.build_seconds[image.name] = time.monotonic() - began

    def inspect(self, image: Image) -> Any:
        """Returns the metadata of the image."""
        return json.loads(_podman("image", "inspect", image.tag).stdout)[0]

    def layers(self, tag: str) -> list[str]:
        """Returns the layers of an image, from its base on."""
        layers: list[str] = json.loads(_podman("image", "inspect", tag).stdout)[0]["RootFS"]["Layers"]
        return layers

    def options(self, image: Image) -> list[str]:
        """Returns the options to run a container: settings from the environment, and only the writable folders that the image needs."""
        settings = [option for name in image.variables for option in ("--env", name)]
        places = [option for place in image.writable for option in ("--tmpfs", f"{place}:rw,size=16m,mode=1777")]
        # podman's own health checks need systemd. --read-only alone would make /tmp, /run and /var/tmp writable.
        return ["--label", self._label, "--no-healthcheck", "--read-only-tmpfs=false", *places, *settings]

    def command(self, image: Image) -> tuple[str, ...]:
        """Returns a command that runs a container like a program: environment, signals and exit status. Arguments can be appended."""
        program = Path(__file__).with_name("contained.py")
        return (sys.executable, str(program), str(self._folder), str(self._lab), "run", *self.options(image), image.tag)

    def run(
        self, image: Image, *arguments: str, environment: dict[str, str] | None = None, entrypoint: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        """Runs a container until it ends."""
        override = ["--entrypoint", entrypoint] if entrypoint else []
        values = [option for name, value in (environment or {}).items() for option in ("--env", f"{name}={value}")]
        command = [self._lab, "run", *self.options(image), *values, *override, image.tag, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    def running(self, image: Image) -> list[str]:
        """Returns the ids of the running containers of an image."""
        return _podman("ps", "--quiet", "--filter", f"label={self._label}", "--filter", f"ancestor={image.tag}").stdout.split()

    def remove_all(self) -> None:
        """Removes containers that a failed test left, and images of earlier runs, which no longer have a tag."""
        for container in _podman("ps", "--all", "--quiet", "--filter", f"label={self._label}").stdout.split():
            _podman("rm", "--force", "--time", "1", container)
        _podman("image", "prune", "--force", "--filter", "label=org.opencontainers.image.vendor=task-manager")


def execute(container: str, *command: str) -> "subprocess.CompletedProcess[str]":
    """Runs a command in a running container."""
    return subprocess.run(["podman", "exec", container, *command], capture_output=True, text=True, check=False, timeout=60)


def _podman(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["podman", *arguments], capture_output=True, text=True, check=True, timeout=120)
