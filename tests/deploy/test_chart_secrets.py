"""Helm generates strong keys and passwords once and keeps them at every upgrade."""

import base64
import re
from typing import Any

import pytest
import yaml
from helm_python import Chart, Config

from helm.chart import ROOT, Object, render
from servicekit.access.seal import parse_key_encryption_keys
from tests.deploy.cluster import cluster
from tests.deploy.rendered import of_kind, pods

NAMES = {"task-manager-keys", "task-manager-database", "task-manager-redis"}


def _secrets(found: list[Object]) -> dict[str, Object]:
    return {one["metadata"]["name"]: one for one in of_kind(found, "Secret")}


def _rendered_in(kubeconfig: str, values: dict[str, Any]) -> dict[str, Object]:
    with Config(kubeconfig_content=kubeconfig, namespace="task-manager") as config, Chart.load(ROOT) as chart:
        texts = config.render(chart, values, name="task-manager", namespace="task-manager", is_upgrade=True)
    return _secrets([one for file, text in texts.items() if file.endswith(".yaml") for one in yaml.safe_load_all(text) if one])


def test_what_is_generated_is_long_random_and_outlives_the_release() -> None:
    first, second = _secrets(render({})), _secrets(render({}))
    assert set(first) == NAMES
    for name, one in first.items():
        assert one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        for key, value in one["data"].items():
            assert len(base64.b64decode(value)) >= 32
            assert value != second[name]["data"][key]
    sealing = base64.b64decode(first["task-manager-keys"]["data"]["key-encryption-key"]).decode()
    assert len(parse_key_encryption_keys(sealing)) == 1
    # Passwords become part of a URL.
    passwords = [value for name in ("task-manager-database", "task-manager-redis") for value in first[name]["data"].values()]
    assert all(base64.b64decode(value).isalnum() for value in passwords)


def test_what_is_there_stays_as_it_is() -> None:
    there: dict[str, Object] = {}
    with cluster(there) as kubeconfig:
        there.update(_rendered_in(kubeconfig, {}))
        assert set(there) == NAMES
        assert {name: one["data"] for name, one in _rendered_in(kubeconfig, {}).items()} == {name: one["data"] for name, one in there.items()}
        # If a later chart version needs another key, Helm adds it and keeps the existing ones.
        del there["task-manager-keys"]["data"]["page-token-key"]
        after = _rendered_in(kubeconfig, {})["task-manager-keys"]["data"]
        assert len(base64.b64decode(after.pop("page-token-key"))) >= 32
        assert after == there["task-manager-keys"]["data"]


@pytest.mark.parametrize(("part", "secret"), [("keys", "task-manager-keys"), ("database", "task-manager-database"), ("redis", "task-manager-redis")])
def test_what_is_given_is_not_generated(part: str, secret: str) -> None:
    found = render({"global": {part: {"existingSecret": "ours"}}})
    assert set(_secrets(found)) == NAMES - {secret}
    named = {entry["valueFrom"]["secretKeyRef"]["name"] for _, template in pods(found) for entry in _variables(template) if "valueFrom" in entry}
    assert named == NAMES - {secret} | {"ours"}


def test_what_was_generated_can_be_taken_over_and_no_pod_changes() -> None:
    generated = render({})
    taken = render({"global": {part: {"existingSecret": f"task-manager-{part}"} for part in ("keys", "database", "redis")}})
    assert taken == [one for one in generated if one["kind"] != "Secret"]
    # `keep`: Helm does not delete a Secret that is no longer in the release.
    assert {one["metadata"]["annotations"]["helm.sh/resource-policy"] for one in _secrets(generated).values()} == {"keep"}


def test_operations_tells_how() -> None:
    said = set(re.findall(r"--set (global\.\w+\.existingSecret=task-manager-\w+)", (ROOT.parents[1] / "docs" / "operations.md").read_text()))
    assert said == {f"global.{name.removeprefix('task-manager-')}.existingSecret={name}" for name in NAMES}


def _variables(template: Object) -> list[Object]:
    return [entry for container in template["spec"]["containers"] for entry in container.get("env", [])]
