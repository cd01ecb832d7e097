"""`python -m gateway.healthcheck`: asks the gateway beside it whether it is ready, for a container engine. Exit status 0 ready, 1 not.

It must not import the settings: what they need takes longer to load than the question takes.
"""

import http.client
import os
import sys
from typing import Final

# Shorter than the engine's own limit (Dockerfile), so that the reason is still said.
TIMEOUT_SECONDS: Final = 2.0
DEFAULT_OPS_PORT: Final = 9094
# What a server that listens everywhere is asked by.
EVERYWHERE: Final = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not bound to


def main() -> int:
    """Says the state and returns the exit status."""
    host = os.environ.get("BIND_HOST", "")
    connection = http.client.HTTPConnection(
        "127.0.0.1" if host in EVERYWHERE else host, int(os.environ.get("OPS_PORT") or DEFAULT_OPS_PORT), timeout=TIMEOUT_SECONDS
    )
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        said, status = answer.read().decode().strip(), answer.status
    except OSError as error:
        said, status = type(error).__name__, 503
    finally:
        connection.close()
    sys.stdout.write(f"{said}\n")
    return 0 if status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
