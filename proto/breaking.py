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
    tag = _git("describe", "--tags", "--abbrev=0", "--match", "v*")
    if tag.returncode != 0:
        sys.stdout.write("no release yet: nothing to compare proto/ with\n")
        return 0
    name = tag.stdout.decode().strip()
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(_git("archive", name, "proto").stdout)) as archive:
            archive.extractall(folder, filter="data")
        generate(Path(folder))
        command = [BUF, "breaking", "gen/descriptors.binpb", "--against", f"{folder}/gen/descriptors.binpb"]
        return subprocess.run([*command, "--config", "buf.yaml", "--path", "taskmanager"], cwd=ROOT, check=False).returncode


def _git(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
