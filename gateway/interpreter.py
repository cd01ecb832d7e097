"""Gathers the Python that it runs on, for an image that has nothing but the C library: `python3 interpreter.py ENVIRONMENT TARGET`.

TARGET is to be laid over that image's root. Interpreter and standard library are in it where they are here, since there the virtual environment looks
for them; the shared libraries that they and the environment's packages need are in /usr/lib, where every loader looks. What of the
standard library needs others (OpenSSL, SQLite, curses …) stays behind: the gateway does without, and each is one more thing to patch.
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

# Of the standard library, what nobody imports here.
UNUSED: Final = ("__pycache__", "_test*", "config-*", "ensurepip", "idlelib", "pydoc_data", "site-packages", "test", "tkinter", "venv")
# Of the standard library's extensions, what brings its libraries along: base64 needs it, and it needs zlib.
EXTENSION: Final = "binascii.*"
# Where distroless images have what a scanner reads, a file for each package.
PACKAGES: Final = Path("var/lib/dpkg/status.d")


def main(environment: Path, target: Path) -> None:
    """Fills TARGET."""
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
    # Here, since the root is read-only where it runs; by the hash, so that the times of files do not matter.
    mode = PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(copy, quiet=1, workers=0, stripdir=target, prependdir="/", invalidation_mode=mode)
    _record(needed, target / PACKAGES)


def libraries(program: Path) -> dict[str, Path]:
    """The shared libraries that a program or a library loads, by name. One that is not there has a path that is not there either."""
    return {name: Path(path) for name, path in re.findall(r"^\s+(\S+) => (/\S+|not found)", _output("ldd", str(program)), re.MULTILINE)}


def _copy(path: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, copy)


def _record(names: Iterable[str], folder: Path) -> None:
    """Says for scanners which of Debian's packages the libraries are from. Python's own may be from none."""
    folder.mkdir(parents=True)
    found = _output("dpkg-query", "--search", *(f"*/{name}" for name in names), check=False)
    for package in {line.partition(":")[0] for line in found.splitlines()}:
        (folder / package).write_text(_output("dpkg-query", "--status", package), encoding="utf-8")


def _output(*command: str, check: bool = True) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=check).stdout  # noqa: S603 - words of our own


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
