"""Writes the constraints files that the images are built from: exact versions, each with the hashes of all its files, for Linux and Python >= 3.11.

Run by `make constraints`. What stands in the files already is kept; with `--upgrade` everything goes up to what pyproject.toml allows. The files
name no index: pip asks the one that it is set up for, and takes nothing whose hash is not here.
"""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent / "pyproject.toml"
# The oldest Python that the project runs on, so that every one from there on is served.
PYTHON = "3.11"


def requirements() -> dict[str, list[str]]:
    """What each file is made from, by the file's name. Later files take the versions of `services.txt` where they share a package."""
    project: dict[str, Any] = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    return {
        "services.txt": project["project"]["dependencies"],
        "gateway.txt": project["dependency-groups"]["gateway"],
        "build.txt": project["build-system"]["requires"],
    }


def write(name: str, wanted: list[str], more: list[str]) -> None:
    """Writes one file. Raises CalledProcessError when uv finds no versions that agree."""
    constraint = [] if name == "services.txt" else ["--constraint", "services.txt"]
    style = ["--generate-hashes", "--universal", "--python-version", PYTHON, "--no-emit-index-url", "--custom-compile-command", "make constraints"]
    command = ["uv", "pip", "compile", "-", "--quiet", "--output-file", name, *style, *constraint, *more]
    subprocess.run(command, cwd=HERE, input="\n".join(wanted), text=True, check=True)  # noqa: S603 - words of our own


if __name__ == "__main__":
    for file, packages in requirements().items():
        write(file, packages, sys.argv[1:])
