"""Tries for real who can connect to whom in a cluster that enforces NetworkPolicies, and compares it with what the chart allows.

`python -m tests.deploy.kind.reach -- KUBECTL…`: executes a small program in a ready pod of each component, and in a pod that does not belong to the
release. Prints a table. Exits with 0 only if exactly the allowed connections are possible.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Final

RELEASE: Final = "task-manager"
STRANGER: Final = "stranger"
PORTS: Final[Mapping[str, Mapping[str, int]]] = {
    "auth-service": {"grpc": 50051, "ops": 9091},
    "task-service": {"grpc": 50052, "ops": 9092},
    "task-worker": {"grpc": 50053, "ops": 9093},
    "gateway": {"http": 8080, "ops": 9094},
    "postgresql": {"postgresql": 5432},
    "redis": {"redis": 6379},
}
# Who may connect to which port. The default values of the chart: every source may reach the gateway's port for clients.
ALLOWED: Final[Mapping[str, frozenset[str]]] = {
    "gateway": frozenset({"auth-service.grpc", "auth-service.ops", "task-service.grpc"}),
    "auth-service": frozenset({"postgresql.postgresql", "redis.redis"}),
    "task-service": frozenset({"postgresql.postgresql", "redis.redis", "auth-service.grpc", "auth-service.ops"}),
    "task-worker": frozenset({"postgresql.postgresql", "redis.redis"}),
    STRANGER: frozenset({"gateway.http"}),
}
# Every connection is tried at once. A packet that a policy drops has no answer, so only the time-out shows it.
PROGRAM: Final = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def reach(item):
    try:
        socket.create_connection((item[1], item[2]), timeout=3).close()
    except OSError:
        return None
    return item[0]
targets = json.loads(sys.argv[1])
with ThreadPoolExecutor(len(targets)) as pool:
    print(json.dumps([name for name in pool.map(reach, targets) if name]))
"""


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.deploy.kind.reach", description="Tries who can connect to whom.")
    parser.add_argument("kubectl", nargs="+", help="kubectl with its options")
    kubectl = parser.parse_args().kubectl
    pods = {component: _pod(kubectl, component) for component in PORTS}
    targets = [(f"{component}.{name}", pods[component][1], port) for component, ports in PORTS.items() for name, port in ports.items()]
    wrong = 0
    sys.stdout.write("| from | can connect to | and must not, or must and cannot |\n| --- | --- | --- |\n")
    for source, allowed in ALLOWED.items():
        name = STRANGER if source == STRANGER else pods[source][0]
        # A pod reaches itself, whatever the policies say.
        others = [target for target in targets if not target[0].startswith(f"{source}.")]
        reached = set(json.loads(_output([*kubectl, "exec", name, "--", "python", "-c", PROGRAM, json.dumps(others)])))
        differences = sorted(reached ^ allowed)
        wrong += len(differences)
        sys.stdout.write(f"| {source} | {', '.join(sorted(reached))} | {', '.join(differences) or 'none'} |\n")
    return int(wrong > 0)


def _pod(kubectl: Sequence[str], component: str) -> tuple[str, str]:
    """Returns the name and the address of a running pod of a component."""
    selector = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/name={component}"
    found = json.loads(_output([*kubectl, "get", "pods", "--selector", selector, "--field-selector", "status.phase=Running", "--output", "json"]))[
        "items"
    ]
    pod = next(pod for pod in found if "deletionTimestamp" not in pod["metadata"])
    return pod["metadata"]["name"], pod["status"]["podIP"]


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout


if __name__ == "__main__":
    sys.exit(main())
