"""One side of `bench.compare`: starts the stack of a checkout, prints its ports and pids as one line of JSON, and stops it when stdin ends.

`python -P bench/side.py ENVIRONMENT` runs with the checkout as working directory and the interpreter of its .venv. ENVIRONMENT is a JSON object, the
environment of the services. This file belongs to the newer checkout, and the older one may have another benchmark. So the module imports only
devstack, which it finds in the checkout; `-P` keeps Python from looking in this folder first.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from devstack.config import PROJECT_ROOT, StackConfig
from devstack.errors import StackError
from devstack.stack import Stack


def main() -> None:
    """Reads the command line and runs the stack until stdin ends."""
    if Path.cwd() != PROJECT_ROOT:
        sys.exit(f"the interpreter {sys.executable} is installed for {PROJECT_ROOT}, not for {Path.cwd()}: that checkout needs a .venv of its own")
    try:
        asyncio.run(run(json.loads(sys.argv[1])))
    except StackError as error:
        sys.exit(str(error))


async def run(environment: dict[str, str]) -> None:
    """Runs the stack, with one replica of each service."""
    with tempfile.TemporaryDirectory(prefix="task-manager-side-") as folder:
        # With a data directory, PostgreSQL runs with fsync, as in production.
        async with Stack(StackConfig(environment=environment, data_dir=Path(folder) / "data")) as stack:
            print(json.dumps(addresses(stack)), flush=True)
            await asyncio.to_thread(sys.stdin.read)


def addresses(stack: Stack) -> dict[str, Any]:
    """Returns the ports for calls, and the pids by the names of the benchmark's figures."""
    processes = stack.state.processes
    names = {"service": "task-1", "gateway": "gateway", "postgres": "postgres", "valkey": "valkey"}
    ports = {"grpc": processes["task-1"].grpc_port, "rest": processes["gateway"].port}
    return {"ports": ports, "processes": {figure: processes[name].pid for figure, name in names.items()}}


if __name__ == "__main__":
    main()
