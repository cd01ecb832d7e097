"""A release of the chart by the real Helm, in a namespace where pods are restricted."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from helm.chart import ROOT, Object
from tests.deploy.apiserver.control_plane import ControlPlane
from tests.deploy.rendered import GIVEN, SCENARIOS

NAME: Final = "task-manager"
TIMEOUT_SECONDS: Final = 90
_MERGE: Final = {"content-type": "application/merge-patch+json"}
_GIVEN: Final = GIVEN | dict.fromkeys(("ca.crt", "tls.crt", "tls.key", "access-key-id", "secret-access-key"), "x")


class Refused(Exception):
    """Helm says no, and why."""


class Release:
    """`scenario` is installed by `install`; all Secrets that it names are there before."""

    def __init__(self, cluster: ControlPlane, helm: Path, folder: Path, scenario: str, namespace: str) -> None:
        self.namespace = namespace
        self._api = cluster.api
        self._values = folder / "values.yaml"
        self._values.write_text(yaml.safe_dump(SCENARIOS[scenario]))
        self._command: list[str | Path] = [helm, "--kubeconfig", cluster.kubeconfig, "--namespace", namespace]
        self._environment = os.environ | {f"HELM_{kind}_HOME": str(folder) for kind in ("CACHE", "CONFIG", "DATA")}
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        cluster.create("/api/v1/namespaces", metadata={"name": namespace, "labels": labels})
        for name in set(_secrets(SCENARIOS[scenario])):
            cluster.create(self._path("", "secrets"), metadata={"name": name}, stringData=_GIVEN)

    def helm(self, command: str, *arguments: str) -> str:
        """What Helm prints. Raises Refused."""
        command_line = [*self._command, command, *arguments]
        done = subprocess.run(command_line, env=self._environment, capture_output=True, encoding="utf-8", check=False)
        if done.returncode:
            raise Refused(done.stderr)
        return done.stdout

    def install(self) -> None:
        """Until all of it is ready, Jobs as well."""
        self.helm("install", NAME, str(ROOT), "--values", str(self._values), "--wait", "--wait-for-jobs", f"--timeout={TIMEOUT_SECONDS}s")

    def upgrade(self, *arguments: str) -> None:
        """To other values."""
        self.helm("upgrade", NAME, str(ROOT), "--reset-then-reuse-values", "--wait", f"--timeout={TIMEOUT_SECONDS}s", *arguments)

    def rollback(self, revision: int) -> None:
        """To what it was."""
        self.helm("rollback", NAME, str(revision), "--wait", f"--timeout={TIMEOUT_SECONDS}s")

    def uninstall(self) -> None:
        """Until all of it is gone."""
        self.helm("uninstall", NAME, "--wait", f"--timeout={TIMEOUT_SECONDS}s")

    def objects(self) -> list[Object]:
        """What Helm gave the API server, and what it gives it in `helm test`."""
        texts = [self.helm("get", part, NAME) for part in ("manifest", "hooks")]
        return [one for text in texts for one in yaml.safe_load_all(text) if one]

    def secrets(self) -> dict[str, dict[str, str]]:
        """By name, what is in those of the chart."""
        found = self._api.get(self._path("", "secrets?fieldSelector=type=Opaque")).raise_for_status().json()["items"]
        return {one["metadata"]["name"]: one["data"] for one in found}

    def deployment(self, name: str) -> Object:
        """As it is there."""
        found: Object = self._api.get(self._path("apps", f"deployments/{name}")).raise_for_status().json()
        return found

    def kubectl_patch(self, group: str, path: str, change: dict[str, Any]) -> None:
        """As `kubectl patch` and `kubectl scale` change something."""
        self._api.patch(self._path(group, f"{path}?fieldManager=kubectl"), json=change, headers=_MERGE).raise_for_status()

    def admits(self, template: Object) -> httpx.Response:
        """What the API server says to a pod of this template; it makes none."""
        metadata = {"generateName": "admitted-"} | {part: template["metadata"].get(part, {}) for part in ("labels", "annotations")}
        return self._api.post(self._path("", "pods?dryRun=All"), json={"metadata": metadata, "spec": template["spec"]})

    def _path(self, group: str, path: str) -> str:
        return f"{f'/apis/{group}' if group else '/api'}/v1/namespaces/{self.namespace}/{path}"


def _secrets(values: dict[str, Any]) -> Iterator[str]:
    """The names of those that must be there before: the values whose name ends so."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _secrets(value)
        elif key.endswith("Secret") and value:
            yield value
