"""A release of the chart, by the real Helm, in a namespace that enforces Pod Security "restricted"."""

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
    """Helm failed. The message is its error output."""


class Release:
    """A release of a scenario. The constructor creates the namespace and all Secrets that the scenario names; `install` installs it."""

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
        """Runs Helm and returns its output. Raises Refused."""
        command_line = [*self._command, command, *arguments]
        done = subprocess.run(command_line, env=self._environment, capture_output=True, encoding="utf-8", check=False)
        if done.returncode:
            raise Refused(done.stderr)
        return done.stdout

    def install(self) -> None:
        """Installs the release and waits until everything is ready, including Jobs."""
        self.helm("install", NAME, str(ROOT), "--values", str(self._values), "--wait", "--wait-for-jobs", f"--timeout={TIMEOUT_SECONDS}s")

    def upgrade(self, *arguments: str) -> None:
        """Upgrades the release with additional arguments."""
        self.helm("upgrade", NAME, str(ROOT), "--reset-then-reuse-values", "--wait", f"--timeout={TIMEOUT_SECONDS}s", *arguments)

    def rollback(self, revision: int) -> None:
        """Rolls the release back to a revision."""
        self.helm("rollback", NAME, str(revision), "--wait", f"--timeout={TIMEOUT_SECONDS}s")

    def uninstall(self) -> None:
        """Uninstalls the release and waits until its objects are deleted."""
        self.helm("uninstall", NAME, "--wait", f"--timeout={TIMEOUT_SECONDS}s")

    def objects(self) -> list[Object]:
        """Returns the objects that Helm has applied, and those of `helm test`."""
        texts = [self.helm("get", part, NAME) for part in ("manifest", "hooks")]
        return [one for text in texts for one in yaml.safe_load_all(text) if one]

    def secrets(self) -> dict[str, dict[str, str]]:
        """Returns the data of the Opaque Secrets, by name."""
        found = self._api.get(self._path("", "secrets?fieldSelector=type=Opaque")).raise_for_status().json()["items"]
        return {one["metadata"]["name"]: one["data"] for one in found}

    def jobs(self) -> dict[str, Object]:
        """Returns the Jobs that exist in the namespace, by name, whoever created them."""
        found = self._api.get(self._path("batch", "jobs")).raise_for_status().json()["items"]
        return {one["metadata"]["name"]: one for one in found}

    def names(self, kind: str, name: str) -> list[str]:
        """Returns the name if such an object of the core API exists, else nothing."""
        found = self._api.get(self._path("", f"{kind}?fieldSelector=metadata.name={name}")).raise_for_status().json()["items"]
        return [one["metadata"]["name"] for one in found]

    def deployment(self, name: str) -> Object:
        """Returns a Deployment from the API server."""
        found: Object = self._api.get(self._path("apps", f"deployments/{name}")).raise_for_status().json()
        return found

    def kubectl_patch(self, group: str, path: str, change: dict[str, Any]) -> None:
        """Changes an object as `kubectl patch` and `kubectl scale` do."""
        self._api.patch(self._path(group, f"{path}?fieldManager=kubectl"), json=change, headers=_MERGE).raise_for_status()

    def admits(self, template: Object) -> httpx.Response:
        """Returns the API server's answer to a pod of this template, as a dry run."""
        metadata = {"generateName": "admitted-"} | {part: template["metadata"].get(part, {}) for part in ("labels", "annotations")}
        # The account of `helm test` exists only during the test, and Pod Security does not depend on it.
        spec = template["spec"] | {"serviceAccountName": "default"}
        return self._api.post(self._path("", "pods?dryRun=All"), json={"metadata": metadata, "spec": spec})

    def _path(self, group: str, path: str) -> str:
        return f"{f'/apis/{group}' if group else '/api'}/v1/namespaces/{self.namespace}/{path}"


def _secrets(values: dict[str, Any]) -> Iterator[str]:
    """Yields the names of the Secrets that must exist before: the values of all keys that end with `Secret`."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _secrets(value)
        elif key.endswith("Secret") and value:
            yield value
