"""Before an install or an upgrade, Helm deletes the Jobs of the release that exist. tests/deploy/apiserver does it for real."""

from typing import Any, Final

import pytest
import yaml
from helm_python import Chart, Config

from helm.chart import ROOT
from tests.deploy.cluster import cluster

LABELS: Final = {
    "app.kubernetes.io/instance": "task-manager",
    "app.kubernetes.io/part-of": "task-manager",
    "app.kubernetes.io/name": "auth-service-migrate",
}
OLD: Final[dict[str, Any]] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "old", "namespace": "task-manager", "labels": LABELS},
    "spec": {"template": {"spec": {"containers": [{"name": "migrate", "image": "old:1"}]}}},
}


def hooks(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the hooks that Helm renders for Jobs in a cluster with one Job."""
    with cluster({}, [job]) as kubeconfig, Config(kubeconfig_content=kubeconfig, namespace="task-manager") as config, Chart.load(ROOT) as chart:
        text = config.render(chart, {}, name="task-manager", namespace="task-manager", is_upgrade=True)["task-manager/templates/old-jobs.yaml"]
    return [one for one in yaml.safe_load_all(text) if one]


def test_a_job_of_the_release_is_deleted_by_a_hook_of_its_name_that_starts_no_pod() -> None:
    (hook,) = hooks(OLD)
    assert (hook["kind"], hook["metadata"]["name"]) == ("Job", "old")
    assert hook["metadata"]["annotations"] == {
        "helm.sh/hook": "pre-install,pre-upgrade",
        "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",
    }
    assert (hook["spec"]["completions"], hook["spec"]["parallelism"]) == (0, 0)
    # The pod's spec stays, so that an admission policy judges the hook as it judged the Job.
    assert hook["spec"]["template"]["spec"] == OLD["spec"]["template"]["spec"]


@pytest.mark.parametrize(
    "change",
    [
        {"labels": LABELS | {"app.kubernetes.io/instance": "another"}},
        {"labels": LABELS | {"app.kubernetes.io/part-of": "another"}},
        {"labels": LABELS | {"app.kubernetes.io/name": "backup-restore"}},
        {"labels": None},
        {"ownerReferences": [{"kind": "CronJob", "name": "task-manager-backup"}]},
    ],
)
def test_a_job_of_another_release_or_owner_and_a_restore_stay(change: dict[str, Any]) -> None:
    assert hooks(OLD | {"metadata": OLD["metadata"] | change}) == []
