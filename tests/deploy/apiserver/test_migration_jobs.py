"""After each command of Helm, whatever failed before, only the migration Jobs of the current revision exist, and each of them has run."""

import pytest
import yaml

from tests.deploy.apiserver.conftest import ReleaseFactory
from tests.deploy.apiserver.pods import BROKEN
from tests.deploy.apiserver.releases import NAME, Refused, Release
from tests.deploy.rendered import component

pytestmark = pytest.mark.apiserver
BROKEN_AUTH = f"--set=auth-service.image.tag={BROKEN}"
REPAIRED_AUTH = "--set=auth-service.image.tag="
BROKEN_CANARY = f"--set=task-service.canary.enabled=true,task-service.canary.image.tag={BROKEN}"
NO_CANARY = "--set=task-service.canary.enabled=false"
SOON = "--timeout=8s"


def current(release: Release) -> set[str]:
    """Returns the names of the Jobs in the manifest of the last revision."""
    # Not `release.objects()`, which also has the hooks that delete old Jobs.
    manifest = yaml.safe_load_all(release.helm("get", "manifest", NAME))
    return {one["metadata"]["name"] for one in manifest if one and one["kind"] == "Job"}


def failed_upgrade(release: Release, *arguments: str) -> None:
    with pytest.raises(Refused):
        release.upgrade(*arguments, SOON)
    assert current(release) <= set(release.jobs())


@pytest.fixture
def release(release_of: ReleaseFactory) -> Release:
    release = release_of("minimal")
    release.install()
    assert set(release.jobs()) == current(release)
    return release


@pytest.mark.parametrize(("broken", "repaired"), [(BROKEN_AUTH, REPAIRED_AUTH), (BROKEN_CANARY, NO_CANARY)])
def test_an_upgrade_after_a_failed_one_leaves_no_job_of_it(release: Release, broken: str, repaired: str) -> None:
    failed_upgrade(release, broken)
    release.upgrade(repaired, "--wait-for-jobs")
    assert set(release.jobs()) == current(release)


def test_a_rollback_of_a_failed_upgrade_leaves_no_job_of_it(release: Release) -> None:
    before = current(release)
    failed_upgrade(release, BROKEN_AUTH)
    release.rollback(1)
    assert set(release.jobs()) == current(release) == before


def test_a_rollback_over_two_failed_upgrades_leaves_no_job_of_them(release: Release) -> None:
    failed_upgrade(release, BROKEN_CANARY)
    failed_upgrade(release, NO_CANARY, BROKEN_AUTH)
    release.rollback(1)
    assert set(release.jobs()) == current(release)


def test_an_uninstall_after_a_failed_upgrade_leaves_no_job_and_an_install_after_it_migrates(release: Release) -> None:
    failed_upgrade(release, BROKEN_AUTH)
    failed_upgrade(release, REPAIRED_AUTH, BROKEN_CANARY)
    release.uninstall()
    assert release.jobs() == {}
    release.install()
    assert set(release.jobs()) == current(release)


def test_a_failed_migration_runs_again_with_the_next_upgrade(release: Release) -> None:
    failed_upgrade(release, BROKEN_AUTH)
    first = {one["metadata"]["uid"] for one in release.jobs().values()}
    failed_upgrade(release, BROKEN_AUTH)
    after = [one for one in release.jobs().values() if component(one) == "auth-service-migrate"]
    assert len(after) == 1
    assert after[0]["metadata"]["uid"] not in first
