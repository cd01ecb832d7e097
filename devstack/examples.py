"""The example calls that the command line prints when the stack is ready."""

import sys
from pathlib import Path

from devstack.config import HOST, PROJECT_ROOT
from devstack.state import State

_EXAMPLES = """
  # create an account, add a task, list the tasks; tm asks for an email, a password and your name
  {tm} login --url {url} --register
  {tm} add Write the plan --due "tomorrow 9am" --priority 4
  {tm} ls

  # the same over REST: register, log in, create a task, list them
  curl -sw '\\n' {url}/api/v1/auth/register -d '{{"email": "ada@example.com", "password": "correct horse battery", "name": "Ada"}}'
  TOKEN=$(curl -s {url}/api/v1/auth/login -d '{{"email": "ada@example.com", "password": "correct horse battery"}}' \\
    | python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])')
  curl -sw '\\n' {url}/api/v1/tasks -H "Authorization: Bearer $TOKEN" -d '{{"title": "Write the plan", "priority": 2}}'
  curl -sw '\\n' {url}/api/v1/tasks -H "Authorization: Bearer $TOKEN"

  # the same list over gRPC
  {buf} curl --schema {proto} --protocol grpc --http2-prior-knowledge -H "Authorization: Bearer $TOKEN" \\
    {url}/taskmanager.task.v1.TaskService/ListTasks
"""


def examples(url: str) -> str:
    """Returns example calls to paste into a shell in the project's directory."""
    return _EXAMPLES.strip("\n").format(url=url, tm=_program("tm"), buf=_program("buf"), proto=_short(PROJECT_ROOT / "gen" / "descriptors.binpb"))


def addresses(state: State) -> str:
    """Returns the addresses of what a user can open: the API, its reference for browsers, and the metrics of each process."""
    metrics = [f"http://{HOST}:{process.ops_port}/metrics ({name})" for name, process in state.processes.items() if process.ops_port]
    tls = [("TLS", url) for url in [state.tls_url] if url]
    lines = [("API", f"{state.url} (REST, gRPC and gRPC-Web)"), *tls, ("docs", f"{state.url}/docs"), ("metrics", ", ".join(metrics))]
    return "".join(f"  {what:<8} {where}\n" for what, where in lines)


def _program(name: str) -> str:
    """Returns a program of this Python's environment, or its name alone if it is installed elsewhere."""
    beside_python = Path(sys.executable).with_name(name)
    return _short(beside_python) if beside_python.exists() else name


def _short(path: Path) -> str:
    """Returns the path relative to the current directory if it is below it. Short paths keep the examples readable."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
