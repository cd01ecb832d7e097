"""Compares proto/ with the last release: what a client was built on must not break. Run by `make check`; before a first release it only says so."""

import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from generate import ROOT, generate

BUF = Path(sys.executable).parent / "buf"


def main() -> int:
    """Returns the exit status: buf's, or 0 if there is nothing to compare with."""
    # A release that is tagged already is compared with the one before, and what is being changed after it with both.
    tags = {tag for commit in ("HEAD", "HEAD^") if (tag := _last_tag(commit))}
    if not tags:
        sys.stdout.write("no release yet: nothing to compare proto/ with\n")
    return max((_compare(tag) for tag in sorted(tags)), default=0)


def _last_tag(commit: str) -> str:
    """The last release that the commit comes after, or is; empty without one."""
    return _git("describe", "--tags", "--abbrev=0", "--match", "v*", commit).stdout.decode().strip()


def _compare(tag: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(_git("archive", tag, "proto").stdout)) as archive:
            archive.extractall(folder, filter="data")
        generate(Path(folder))
        command = [BUF, "breaking", "gen/descriptors.binpb", "--against", f"{folder}/gen/descriptors.binpb"]
        return subprocess.run([*command, "--config", "buf.yaml", "--path", "taskmanager"], cwd=ROOT, check=False).returncode


def _git(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
