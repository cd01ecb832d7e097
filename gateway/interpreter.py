"""Copies the Python interpreter that runs this script into an image that has only the C library: `python3 interpreter.py ENVIRONMENT TARGET`.

TARGET is a directory tree to copy over the image's root. The interpreter and the standard library keep their paths, because the virtual environment
expects them there. The shared libraries that they and the environment's packages need are in /usr/lib, where every loader searches. Extension modules
of the standard library that need other libraries (OpenSSL, SQLite, curses …) are left out: the gateway does not use them, and each would need
security updates.
"""

import compileall
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Final

# The parts of the standard library that the gateway does not import.
UNUSED: Final = ("__pycache__", "_test*", "config-*", "ensurepip", "idlelib", "pydoc_data", "site-packages", "test", "tkinter", "venv")
# The standard library's extension module whose shared libraries are copied too: base64 needs binascii, and binascii needs zlib.
EXTENSION: Final = "binascii.*"
# The directory of the package records in distroless images, one file for each package. Security scanners read it.
PACKAGES: Final = Path("var/lib/dpkg/status.d")


def main(environment: Path, target: Path) -> None:
    """Fills the target directory."""
    interpreter, standard = Path(sys.executable), Path(sysconfig.get_path("stdlib"))
    glibc = {Path(line).name for line in _output("dpkg-query", "--listfiles", "libc6").splitlines()}
    programs = [interpreter, *environment.rglob("*.so"), *(standard / "lib-dynload").glob(EXTENSION)]
    needed = {name: path for program in programs for name, path in libraries(program).items() if name not in glibc}

    _copy(interpreter, target / interpreter.relative_to("/"))
    for name, path in needed.items():
        _copy(path, target / "usr/lib" / name)
    copy = target / standard.relative_to("/")
    shutil.copytree(standard, copy, ignore=shutil.ignore_patterns(*UNUSED), ignore_dangling_symlinks=True)
    for extension in (copy / "lib-dynload").iterdir():
        if libraries(extension).keys() - needed.keys() - glibc:
            extension.unlink()
    # Compiled at build time, because the container's root is read-only. By hash, so that the files' modification times do not matter.
    mode = PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(copy, quiet=1, workers=0, stripdir=target, prependdir="/", invalidation_mode=mode)
    _record(needed, target / PACKAGES)


def libraries(program: Path) -> dict[str, Path]:
    """Returns the paths of the shared libraries that a program or library loads, by name. The path of a missing library does not exist."""
    return {name: Path(path) for name, path in re.findall(r"^\s+(\S+) => (/\S+|not found)", _output("ldd", str(program)), re.MULTILINE)}


def _copy(path: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, copy)


def _record(names: Iterable[str], folder: Path) -> None:
    """Writes the records of the Debian packages that the libraries come from, for security scanners. Python itself may come from no package."""
    folder.mkdir(parents=True)
    found = _output("dpkg-query", "--search", *(f"*/{name}" for name in names), check=False)
    for package in {line.partition(":")[0] for line in found.splitlines()}:
        (folder / package).write_text(_output("dpkg-query", "--status", package), encoding="utf-8")


def _output(*command: str, check: bool = True) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=check).stdout  # noqa: S603 - no untrusted input


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
