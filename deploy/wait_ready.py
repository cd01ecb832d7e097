"""`wait_ready.py HOST:PORT`: waits until the gateway on that port of localhost reports that the system is ready. Exits with 1 after LIMIT_SECONDS."""

import sys
import time
import urllib.error
import urllib.request
from typing import Final

LIMIT_SECONDS: Final = 120.0
POLL_SECONDS: Final = 0.5


def wait(url: str, limit_seconds: float = LIMIT_SECONDS) -> bool:
    """Returns True when `/ready` answers with success, False after the limit."""
    until = time.monotonic() + limit_seconds
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=2):  # noqa: S310 - the caller passes an http URL
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(POLL_SECONDS)
    return False


if __name__ == "__main__":
    address = f"http://localhost:{sys.argv[1].rpartition(':')[2]}"
    if not wait(address):
        sys.exit(f"{address} is not ready after {LIMIT_SECONDS:.0f} s: see `docker compose ps` and `docker compose logs`")
    sys.stdout.write(f"ready: {address}\n")
