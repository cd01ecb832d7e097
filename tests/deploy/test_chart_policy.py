"""checkov finds nothing in the rendered objects, except findings with a stated reason."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.rendered import SCENARIOS, objects
from tests.support.tools import required

pytestmark = pytest.mark.slow("checkov takes 12 s, most of them for its imports")

CHECKOV = "pip install checkov, in an environment of its own: it pins much"
# Accepted findings: the objects, and the reason. An entry without a finding fails the test.
EXCEPTIONS = {
    "CKV_K8S_8": (r"Pod\..*-smoke-test", "probes of a pod that ends by itself"),
    "CKV_K8S_9": (r"Pod\..*-smoke-test", "the same"),
    "CKV_K8S_15": (".*", "pull policy Always: tags are versions, which do not move; where they might, `image.digest` is there"),
    "CKV_K8S_21": (".*", "the default namespace: Helm and kustomize name it, and the objects do not"),
    "CKV_K8S_35": (".*", "secrets as variables: settings come from the environment, and a file would be read by the same process"),
    "CKV_K8S_40": (
        r"(StatefulSet\..*-postgresql|Deployment\..*-redis)|(Cron)?Job\..*-backup(-(restore|claim)-.*)?",
        "a user above 10000: these official images have theirs, 999",
    ),
    "CKV_K8S_43": (".*", "digests: `image.digest` takes one, and who mirrors images has another"),
}


def test_checkov_finds_only_what_has_a_reason(tmp_path: Path) -> None:
    checkov = required("checkov", CHECKOV)
    every = {repr(one): one for scenario in SCENARIOS for one in objects(scenario)}
    for number, one in enumerate(every.values()):
        (tmp_path / f"{number}.yaml").write_text(yaml.safe_dump(one))
    command = [checkov, "--directory", str(tmp_path), "--framework", "kubernetes", "--output", "json", "--quiet", "--skip-download"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"LOG_LEVEL": "ERROR"})
    failed = json.loads(done.stdout)["results"]["failed_checks"]
    assert {(check["check_id"], check["check_name"], check["resource"]) for check in failed if not _excepted(check)} == set()
    assert EXCEPTIONS.keys() == {check["check_id"] for check in failed}


def _excepted(check: dict[str, str]) -> bool:
    where, _ = EXCEPTIONS.get(check["check_id"], ("", ""))
    return re.fullmatch(where, check["resource"]) is not None
