"""`python -m gateway.healthcheck`: a container engine's health check of the gateway in the same container. Exit status 0 if ready, else 1.

It must not import gateway.settings, because loading that module's dependencies takes longer than the check itself.
"""

import http.client
import os
import sys
from typing import Final

# Shorter than the container engine's timeout (Dockerfile), so that the check can still print the reason.
TIMEOUT_SECONDS: Final = 2.0
DEFAULT_OPS_PORT: Final = 9094
# Values of BIND_HOST that mean all interfaces. The check then connects to 127.0.0.1.
EVERYWHERE: Final = ("", "0.0.0.0", "::")  # noqa: S104 - only compared, not bound


def main() -> int:
    """Prints the gateway's state and returns the exit status."""
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
