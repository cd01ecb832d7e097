"""Stays before Envoy in its container, since Envoy ends at once on SIGTERM: lets balancers look away and calls end first.

On SIGTERM or SIGINT: /readyz falls → `drain_delay_seconds` for balancers to look away → no new connections, and those there are are told to go →
calls under way end, at most `shutdown_grace_seconds` → Envoy ends. It imports the standard library alone and is started as a file, which keeps it
at a few megabytes beside Envoy.
"""

import http.client
import json
import os
import re
import signal
import sys
import time
from typing import Any, Final

TIMEOUT_SECONDS: Final = 2.0
POLL_SECONDS: Final = 0.1
ASKING: Final = (signal.SIGTERM, signal.SIGINT)
# Calls of clients; probes and the admin's own requests are not waited for.
ACTIVE: Final = re.compile(r"^http\.gateway(_tls)?\.downstream_rq_active: (\d+)$", re.MULTILINE)


class Envoy:
    """The process, and what it is told over its admin port."""

    def __init__(self, command: list[str], admin_port: int) -> None:
        """Starts it. It must not inherit that the signals are held back."""
        self._pid = os.posix_spawn(command[0], command, os.environ, setsigmask=())
        self._admin_port = admin_port
        self.status: int | None = None

    def look(self) -> None:
        """Notices its end: `status` is its exit status then, and a signal's number negative."""
        if self.status is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None

    def end(self) -> None:
        """Tells it to end, and waits."""
        if self.status is None:
            os.kill(self._pid, signal.SIGTERM)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def tell(self, path: str) -> None:
        """Gives an order. One that cannot be given is left out: the end must come all the same."""
        self._request("POST", path)

    def calls(self) -> int:
        """How many calls are under way; 0 when nobody can say."""
        return sum(int(match[2]) for match in ACTIVE.finditer(self._request("GET", "/stats?filter=downstream_rq_active")))

    def _request(self, method: str, path: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self._admin_port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(method, path)
            return connection.getresponse().read().decode()
        except OSError:
            return ""
        finally:
            connection.close()


def run(orders: dict[str, Any]) -> int:
    """Runs Envoy until it ends or a signal asks for it. Returns Envoy's exit status."""
    waited = {*ASKING, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    envoy = Envoy(orders["command"], orders["admin_port"])
    while envoy.status is None:
        if signal.sigwait(waited) in ASKING:
            drain(envoy, orders["drain_delay_seconds"], orders["shutdown_grace_seconds"])
            envoy.end()
        envoy.look()
    return envoy.status


def drain(envoy: Envoy, delay_seconds: float, grace_seconds: float) -> None:
    """Returns when no call is under way, or when the grace is over. A second signal ends the waiting."""
    envoy.tell("/healthcheck/fail")
    if pause(envoy, delay_seconds):
        return
    envoy.tell("/drain_listeners")
    until = time.monotonic() + grace_seconds
    while envoy.calls() and time.monotonic() < until:
        if pause(envoy, POLL_SECONDS):
            return


def pause(envoy: Envoy, seconds: float) -> bool:
    """Waits, and tells whether to wait no more: Envoy has ended, or a signal hurries."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        found = signal.sigtimedwait({*ASKING, signal.SIGCHLD}, left)
        envoy.look()
        if envoy.status is not None or (found is not None and found.si_signo in ASKING):
            return True
    return False


if __name__ == "__main__":
    status = run(json.loads(sys.argv[1]))
    # As a shell would say it: a process that a signal ended has 128 and its number.
    sys.exit(status if status >= 0 else 128 - status)
