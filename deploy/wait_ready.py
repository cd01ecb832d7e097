"""`wait_ready.py HOST:PORT`: waits until the gateway there says that the whole system is ready, and says so. Exit status 1: not in time."""

import sys
import time
import urllib.error
import urllib.request
from typing import Final

LIMIT_SECONDS: Final = 120.0
POLL_SECONDS: Final = 0.5


def wait(url: str, limit_seconds: float = LIMIT_SECONDS) -> bool:
    """Whether it became ready."""
    until = time.monotonic() + limit_seconds
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=2):  # noqa: S310 - http, as the caller says
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(POLL_SECONDS)
    return False


if __name__ == "__main__":
    address = f"http://localhost:{sys.argv[1].rpartition(':')[2]}"
    if not wait(address):
        sys.exit(f"{address} is not ready after {LIMIT_SECONDS:.0f} s: see `docker compose ps` and `docker compose logs`")
    sys.stdout.write(f"ready: {address}\n")
