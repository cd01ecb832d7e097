"""`python -m servicekit.process.healthcheck PORT`: asks the service in the same container whether it is ready.

A container engine runs it: exit status 0 means ready, 1 not ready.

The settings GRPC_PORT and BIND_HOST override the argument, because the service listens there. The check reports readiness and not liveness: a
container that depends on this one starts only when this one can be used.
"""

import os
import sys
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

# Shorter than the engine's own limit (Dockerfile), so that the check can still print the reason.
TIMEOUT_SECONDS: Final = 2.0
# If the server listens on one of these, it listens on all addresses, and the check connects to 127.0.0.1.
EVERYWHERE: Final = ("", "0.0.0.0", "::", "[::]")  # noqa: S104 - compared with, not bound to


def main(arguments: list[str]) -> int:
    """Prints the state and returns the exit status."""
    port = os.environ.get("GRPC_PORT") or arguments[0]
    host = os.environ.get("BIND_HOST", "")
    with grpc.insecure_channel(f"{'127.0.0.1' if host in EVERYWHERE else host}:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            sys.stdout.write(f"{error.code().name}\n")
            return 1
    sys.stdout.write(f"{health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}\n")
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
