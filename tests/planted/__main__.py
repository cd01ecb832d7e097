"""Plants each bug in a copy of the source tree and runs the tests that must find it. Exits with status 1 if a bug is not found."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.planted.bugs import BUGS, Bug

ROOT = Path(__file__).resolve().parents[2]
# What the installation of the project writes (hatch_build.py), and git ignores. Without it no system starts.
GENERATED = ("gen", "gateway/docs/swagger_ui")
LIMIT_SECONDS = 900
# pytest's exit status for "tests ran and some failed". Any other status (no test ran, an import failed) proves nothing.
TESTS_FAILED = 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.planted", description="Plants bugs and checks that the tests find them.")
    parser.add_argument("names", nargs="*", help="words in the names of the bugs to plant (default: all)")
    wanted: Sequence[str] = parser.parse_args().names
    bugs = [bug for bug in BUGS if not wanted or any(word in bug.name for word in wanted)]
    found = [_is_found(bug) for bug in bugs]
    return 0 if found and all(found) else 1


def _is_found(bug: Bug) -> bool:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        copy = Path(folder) / "tree"
        copy_tree(copy)
        file = copy / bug.file
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace(bug.old, bug.new), encoding="utf-8")
        # `-m` puts the copy's packages before the installed ones, and PYTHONPATH the client, which has a folder of its own.
        command = (sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *bug.tests)
        environment = {**os.environ, "PYTHONPATH": str(copy / "client")}
        run = subprocess.run(command, cwd=copy, env=environment, timeout=LIMIT_SECONDS, capture_output=True, text=True, check=False)
    failed = [line for line in run.stdout.splitlines() if line.startswith("FAILED")]
    # A fixture that fails gives the same status but proves nothing.
    found = run.returncode == TESTS_FAILED and bool(failed)
    sys.stdout.write(f"{'found' if found else 'NOT FOUND'} ({time.monotonic() - began:.0f} s): {bug.name}\n")
    sys.stdout.write("".join(f"    {line[:140]}\n" for line in failed) if found else run.stdout[-3000:] + run.stderr[-1000:])
    sys.stdout.flush()
    return found


def copy_tree(to: Path) -> None:
    """Copies the files that git tracks or does not ignore, with Python's caches of them, and what the installation has generated."""
    listed = subprocess.run(("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"), cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            # With the time of its last change, by which Python knows that the cache belongs to it. That of a file with a bug does not.
            shutil.copy2(ROOT / name, to / name)
    for cache in {(ROOT / name).parent / "__pycache__" for name in filter(None, listed.decode().split("\0"))}:
        if cache.is_dir():
            shutil.copytree(cache, to / cache.relative_to(ROOT))
    for name in GENERATED:
        shutil.copytree(ROOT / name, to / name)


if __name__ == "__main__":
    sys.exit(main())
