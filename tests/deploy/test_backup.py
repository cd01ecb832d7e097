"""A backup of a running system is complete or missing, and stays for the retention time. shellcheck finds nothing in the scripts."""

import os
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from devstack.backup import SCRIPTS
from devstack.config import StackConfig
from devstack.stack import Stack
from tests.support.backups import Operator, sum_of
from tests.support.tools import required

OWN_SYSTEM = pytest.mark.slow("the module starts a system of its own, and backs it up again and again")

DAY_SECONDS = 86_400


@pytest.fixture(scope="module")
async def stack() -> AsyncIterator[Stack]:
    async with Stack(StackConfig()) as stack:
        yield stack


@pytest.fixture
def operator(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return Operator(stack, tmp_path_factory.mktemp("backups"))


FAILURES = {
    "a wrong password": ("", {"PGPASSWORD": "wrong"}),
    "no such database": ("", {"PGDATABASE": "nowhere"}),
    "killed half-way": ('echo PGDMP > "${2#--file=}"; kill -9 $$', {}),
    "says that all is well": ('echo PGDMP > "${2#--file=}"', {}),
    # Truncated inside the rows, so the table of contents before them is complete.
    "writes a part": ('"$REAL" "$@" && head -c -200 "${2#--file=}" > "${2#--file=}.part" && mv "${2#--file=}.part" "${2#--file=}"', {}),
    "of one table": ('"$REAL" --format=custom "$2" --table=task.feed', {}),
}


@OWN_SYSTEM
@pytest.mark.parametrize("failure", FAILURES)
async def test_a_backup_that_fails_leaves_nothing_that_looks_good_and_what_there_was(operator: Operator, tmp_path: Path, failure: str) -> None:
    old = _old_backup(operator.folder, "task-manager-20200101T000000Z.dump", days=1000)
    text, told = FAILURES[failure]
    if text:
        told = {"PATH": operator.with_program("pg_dump", text, tmp_path)}
    failed = await operator.script("backup.sh", str(operator.folder), **told)
    assert failed.status == 1, failed.output
    assert "backup failed" in failed.output
    assert sorted(operator.folder.iterdir()) == sorted([old, sum_of(old)])


@OWN_SYSTEM
async def test_backups_are_kept_as_long_as_is_said(operator: Operator) -> None:
    young = _old_backup(operator.folder, "task-manager-20260102T000000Z.dump", days=2.9)
    old = _old_backup(operator.folder, "task-manager-20260101T000000Z.dump", days=3.1)
    strange = _old_backup(operator.folder, "precious.dump", days=1000)
    draft = _old_backup(operator.folder, ".task-manager-20260101T000000Z.dump.7.draft", days=1.1)
    ran = await operator.script("backup.sh", str(operator.folder), BACKUP_RETENTION_DAYS="3")
    assert ran.status == 0, ran.output
    kept = {path.name for path in operator.folder.iterdir()}
    assert {young.name, f"{young.name}.sha256", strange.name} <= kept
    assert not {old.name, f"{old.name}.sha256", draft.name} & kept
    (new,) = set(operator.folder.glob("task-manager-*.dump")) - {young}
    assert new.stat().st_mode & 0o777 == 0o600


@OWN_SYSTEM
@pytest.mark.parametrize("days", ["0", "-1", "some", ""])
async def test_a_wrong_number_of_days_is_refused(operator: Operator, days: str) -> None:
    ran = await operator.script("backup.sh", str(operator.folder), BACKUP_RETENTION_DAYS=days or " ")
    assert ran.status == 2
    assert "BACKUP_RETENTION_DAYS" in ran.output


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.sh")))
def test_shellcheck_finds_nothing(script: str) -> None:
    program = required("shellcheck", "apt-get install shellcheck")
    found = subprocess.run([program, str(SCRIPTS / script)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


def _old_backup(folder: Path, name: str, days: float) -> Path:
    path = folder / name
    written = time.time() - days * DAY_SECONDS
    for file in (path, sum_of(path)):
        file.write_text("of old")
        os.utime(file, (written, written))
    return path
