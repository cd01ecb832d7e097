"""Drains Envoy before its pod stops: `drain.py DELAY_SECONDS GRACE_SECONDS`. Kubernetes sends SIGTERM when this has ended.

Envoy says that it is not ready, and ends each client's connection with its next answer. After the delay, by which balancers have looked away, this
waits until no request is under way, at most for the grace.
"""

import os
import re
import sys
import time
import urllib.request

ADMIN = f"http://127.0.0.1:{os.environ.get('ADMIN_PORT', '9901')}"
# Requests of the two ports that clients use; not of the ops port, where Prometheus may be asking.
UNDER_WAY = r"^http\.gateway(?:_tls)?\.downstream_rq_active: (\d+)$"
POLL_SECONDS = 0.2


def main() -> None:
    """Returns when the pod may stop."""
    delay, grace = float(sys.argv[1]), float(sys.argv[2])
    _ask("/healthcheck/fail", "POST")
    time.sleep(delay)
    end = time.monotonic() + grace
    while time.monotonic() < end and _under_way():
        time.sleep(POLL_SECONDS)


def _under_way() -> int:
    return sum(map(int, re.findall(UNDER_WAY, _ask("/stats?filter=downstream_rq_active", "GET"), re.MULTILINE)))


def _ask(path: str, method: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(ADMIN + path, method=method), timeout=2) as answer:
        return answer.read().decode()


if __name__ == "__main__":
    main()
