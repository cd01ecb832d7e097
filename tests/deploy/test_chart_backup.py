"""The volume of a backup exists after the install, and the NetworkPolicies allow the connections that a backup needs."""

from typing import Any

import pytest

from helm.chart import render
from tests.deploy.rendered import SCENARIOS, component, get, objects, of_kind, pods


def test_a_claim_is_mounted_at_once() -> None:
    """Helm waits until the claim is bound. With WaitForFirstConsumer a pod must mount it first, and the CronJob's first pod would be too late."""
    found = objects("backup")
    claims = {one["metadata"]["name"] for one in of_kind(found, "PersistentVolumeClaim")}
    mounted = {
        volume["persistentVolumeClaim"]["claimName"]
        for one, template in pods(found)
        if one["kind"] == "Job" and component(one) == "backup-claim"
        for volume in template["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert mounted == claims == {"task-manager-backup"}
    # A Job is immutable, so a changed value must give it another name. With an existing claim there is no such Job.
    values = SCENARIOS["backup"]["backup"]
    changes: tuple[dict[str, Any], ...] = ({"image": {"tag": "18.7"}}, {"storage": {"existingClaim": "ours"}})
    other, given = (render(SCENARIOS["backup"] | {"backup": values | change}) for change in changes)
    names = [{one["metadata"]["name"] for one in of_kind(each, "Job") if component(one) == "backup-claim"} for each in (found, other, given)]
    assert [len(each) for each in names] == [1, 1, 0]
    assert names[0] != names[1]


@pytest.mark.parametrize(("secret", "extra"), [("bucket", []), ("", [(["169.254.170.23/32", "fd00:ec2::23/128"], 80)])])
def test_a_backup_reaches_the_bucket_and_what_gives_it_an_identity(secret: str, extra: list[Any]) -> None:
    backup = SCENARIOS["backup"]["backup"]
    found = render(SCENARIOS["backup"] | {"backup": backup | {"s3": backup["s3"] | {"existingSecret": secret}}})
    for name in ("backup", "backup-restore"):
        rules = get(found, "NetworkPolicy", f"task-manager-{name}")["spec"]["egress"]
        blocks = [([peer["ipBlock"]["cidr"] for peer in rule["to"]], rule["ports"][0]["port"]) for rule in rules if "ipBlock" in repr(rule)]
        assert blocks == [(["192.0.2.0/24"], 443), *extra]
