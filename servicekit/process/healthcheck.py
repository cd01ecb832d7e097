"""`python -m servicekit.process.healthcheck PORT`: asks the service in the same container whether it is ready.

A container engine runs it: exit status 0 means ready, 1 not ready.

Settings win over the argument, as they do for the service. It must not tell of liveness: what waits for a container waits until it can be used.
"""

import os
import sys
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

# Shorter than the engine's own limit (Dockerfile), so that the reason is still said.
TIMEOUT_SECONDS: Final = 2.0
# What a server that listens everywhere is asked by.
EVERYWHERE: Final = ("", "0.0.0.0", "::", "[::]")  # noqa: S104 - compared with, not bound to


def main(arguments: list[str]) -> int:
    """Says the state and returns the exit status."""
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
