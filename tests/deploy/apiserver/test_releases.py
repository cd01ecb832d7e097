"""The real Helm installs, upgrades, rolls back and removes the chart as docs/operations.md describes."""

import base64
import json
from typing import Any

import pytest

from tests.deploy.apiserver.conftest import ReleaseFactory
from tests.deploy.apiserver.releases import Refused, Release
from tests.deploy.rendered import SCENARIOS, pods, title

pytestmark = pytest.mark.apiserver
GENERATED = {"task-manager-keys", "task-manager-database", "task-manager-redis"}
TASK_SERVICE = "task-manager-task-service"
OTHER = "--set=task-service.settings.CACHE_TTL_SECONDS=600"
CANARY = "--set=task-service.canary.enabled=true,task-service.canary.image.tag=0.2.0,task-service.canary.weight=5"
TAKEN_OVER = [f"--set=global.{part}.existingSecret=task-manager-{part}" for part in ("keys", "database", "redis")]


def rotate(release: Release) -> str:
    """Rotates a secret by hand, as docs/operations.md describes. Returns the new value."""
    release.kubectl_patch("", "secrets/task-manager-keys", {"stringData": {"service-token": "fedcba9876543210" * 2}})
    return release.secrets()["task-manager-keys"]["service-token"]


def replicas(release: Release) -> Any:
    return release.deployment(TASK_SERVICE)["spec"]["replicas"]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_is_installed_and_tested_where_pods_are_restricted(release_of: ReleaseFactory, scenario: str) -> None:
    release = release_of(scenario)
    release.install()
    assert "Phase:          Succeeded" in release.helm("test", "task-manager", "--timeout=60s")
    assert release.names("pods", "task-manager-smoke-test") == release.names("configmaps", "task-manager-smoke-test") == []
    # Without StatefulSets: their pods have more than the template, and the API server has already admitted them.
    found = [(one, template) for one, template in pods(release.objects()) if one["kind"] != "StatefulSet"]
    refused = {title(one): answer.text for one, template in found if not (answer := release.admits(template)).is_success}
    assert found
    assert not refused


def test_a_pod_that_is_not_restricted_is_refused(release_of: ReleaseFactory) -> None:
    release = release_of("minimal")
    release.install()
    template = next(template for one, template in pods(release.objects()) if one["kind"] == "Deployment")
    assert release.admits(template).is_success
    template["spec"]["containers"][0].pop("securityContext")
    assert 'violates PodSecurity "restricted' in release.admits(template).json()["message"]


def test_what_is_generated_stays_through_upgrade_rollback_and_another_install(release_of: ReleaseFactory) -> None:
    release = release_of("defaults")
    release.install()
    generated = release.secrets()
    assert set(generated) == GENERATED
    release.upgrade(OTHER)
    assert release.secrets() == generated
    release.rollback(1)
    assert release.secrets() == generated
    release.uninstall()
    assert release.secrets() == generated
    release.install()
    assert release.secrets() == generated


def test_after_a_rotation_of_what_is_generated_a_rollback_fails_and_has_done_the_rest(release_of: ReleaseFactory) -> None:
    release = release_of("minimal")
    release.install()
    before = release.deployment(TASK_SERVICE)["spec"]
    release.upgrade(OTHER, CANARY)
    assert release.deployment(TASK_SERVICE)["spec"] != before
    rotated = rotate(release)
    with pytest.raises(Refused, match=r"task-manager-keys .*conflict"):
        release.rollback(1)
    assert release.secrets()["task-manager-keys"]["service-token"] == rotated
    assert release.deployment(TASK_SERVICE)["spec"] == before
    assert release.deployment(f"{TASK_SERVICE}-canary")["spec"]
    assert json.loads(release.helm("status", "task-manager", "--output=json"))["info"]["status"] == "failed"


def test_what_was_taken_over_is_rotated_and_a_rollback_lets_it_be(release_of: ReleaseFactory) -> None:
    release = release_of("minimal")
    release.install()
    generated, before = release.secrets(), release.deployment(TASK_SERVICE)
    release.upgrade(*TAKEN_OVER)
    assert release.secrets() == generated
    assert release.deployment(TASK_SERVICE)["spec"] == before["spec"]
    release.upgrade(OTHER)
    rotated = rotate(release)
    assert base64.b64decode(rotated).decode() == "fedcba9876543210" * 2
    release.rollback(2)
    assert release.deployment(TASK_SERVICE)["spec"] == before["spec"]
    assert release.secrets()["task-manager-keys"] == generated["task-manager-keys"] | {"service-token": rotated}


def test_what_was_scaled_by_hand_is_scaled_by_helm_only_with_force(release_of: ReleaseFactory) -> None:
    release = release_of("minimal")
    release.install()
    release.kubectl_patch("apps", f"deployments/{TASK_SERVICE}/scale", {"spec": {"replicas": 3}})
    before = release.deployment(TASK_SERVICE)["spec"]
    with pytest.raises(Refused, match=rf"{TASK_SERVICE} .*conflict"):
        release.upgrade("--set=task-service.replicas=2", OTHER)
    # Helm changes an object completely or not at all.
    assert release.deployment(TASK_SERVICE)["spec"] == before
    release.upgrade("--set=task-service.replicas=2", "--force-conflicts")
    assert replicas(release) == 2


def test_a_canary_comes_and_goes(release_of: ReleaseFactory) -> None:
    release = release_of("minimal")
    release.install()
    release.upgrade(CANARY)
    assert release.deployment(f"{TASK_SERVICE}-canary")["status"]["readyReplicas"] >= 1
    release.upgrade("--set=task-service.canary.enabled=false")
    assert not [one for one, _ in pods(release.objects()) if title(one).endswith("-canary")]
