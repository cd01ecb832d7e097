"""Compares proto/ with the last release and reports changes that break clients. `make check` runs it. Without a release it compares nothing.

buf compares the messages and methods. The comparison of the OpenAPI documents adds what buf does not see: REST paths, statuses and bounds.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from generate import ROOT, generate
from openapi_changes import breaking_changes

from gateway.openapi.document import document

BUF = Path(sys.executable).parent / "buf"
DESCRIPTORS = ROOT / "gen" / "descriptors.binpb"


def main() -> int:
    """Returns buf's exit status, or 0 if there is no release to compare with."""
    # HEAD itself can be a release. Then proto/ is compared with that release, which finds uncommitted changes, and with the release before it.
    tags = {tag for commit in ("HEAD", "HEAD^") if (tag := _last_tag(commit))}
    if not tags:
        sys.stdout.write("no release yet: nothing to compare proto/ with\n")
    return max((_compare(tag) for tag in sorted(tags)), default=0)


def _last_tag(commit: str) -> str:
    """Returns the newest release tag at the commit or before it, or an empty string if there is none."""
    return _git("describe", "--tags", "--abbrev=0", "--match", "v*", commit).stdout.decode().strip()


def _compare(tag: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(_git("archive", tag, "proto").stdout)) as archive:
            archive.extractall(folder, filter="data")
        generate(Path(folder))
        released = Path(folder, "gen", "descriptors.binpb")
        command = [BUF, "breaking", DESCRIPTORS, "--against", released, "--config", "buf.yaml", "--path", "taskmanager"]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        changes = list(breaking_changes(document(released.read_bytes(), {}), document(DESCRIPTORS.read_bytes(), {})))
    sys.stdout.write("".join(f"{change} (REST, since {tag})\n" for change in changes))
    return status or int(bool(changes))


def _git(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
