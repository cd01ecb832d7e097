"""Writes the constraints files that the images are built from: exact versions, each with the hashes of all its files, for Linux and Python >= 3.11.

`make constraints` runs it. uv keeps the versions that the files already have; with `--upgrade` it takes the newest versions that pyproject.toml
allows. The files name no package index: pip uses the index that it is configured for, and rejects every file whose hash is not listed.
"""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent / "pyproject.toml"
# The oldest Python that the project supports, so that the files fit every later one too.
PYTHON = "3.11"


def requirements() -> dict[str, list[str]]:
    """Returns the requirements of each file, by file name. If a later file shares a package with `services.txt`, it takes that version."""
    project: dict[str, Any] = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    return {
        "services.txt": project["project"]["dependencies"],
        "gateway.txt": project["dependency-groups"]["gateway"],
        "build.txt": project["build-system"]["requires"],
    }


def write(name: str, wanted: list[str], more: list[str]) -> None:
    """Writes one file. Raises CalledProcessError if uv finds no compatible versions."""
    constraint = [] if name == "services.txt" else ["--constraint", "services.txt"]
    style = ["--generate-hashes", "--universal", "--python-version", PYTHON, "--no-emit-index-url", "--custom-compile-command", "make constraints"]
    command = ["uv", "pip", "compile", "-", "--quiet", "--output-file", name, *style, *constraint, *more]
    subprocess.run(command, cwd=HERE, input="\n".join(wanted), text=True, check=True)  # noqa: S603 - constants and the caller's options


if __name__ == "__main__":
    for file, packages in requirements().items():
        write(file, packages, sys.argv[1:])
