"""Runs Envoy and drains it before it stops. Without this supervisor Envoy would exit immediately on SIGTERM.

On SIGTERM or SIGINT it makes /readyz fail and waits `drain_delay_seconds`, until load balancers stop routing to the gateway. Then Envoy accepts no
new connections and asks clients to close the existing ones. The supervisor waits at most `shutdown_grace_seconds` for the running calls and then
stops Envoy. It imports only the standard library and runs as a file, so it needs only a few megabytes of memory.
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
# The number of the clients' running calls. It leaves out probes and requests to the admin port.
ACTIVE: Final = re.compile(r"^http\.gateway(_tls)?\.downstream_rq_active: (\d+)$", re.MULTILINE)


class Envoy:
    """The Envoy process and its admin port."""

    def __init__(self, command: list[str], admin_port: int) -> None:
        """Starts Envoy with an empty signal mask, so that it does not inherit the supervisor's blocked signals."""
        self._pid = os.posix_spawn(command[0], command, os.environ, setsigmask=())
        self._admin_port = admin_port
        self.status: int | None = None

    def look(self) -> None:
        """If Envoy has ended, sets `status` to its exit status. If a signal ended it, `status` is the negative signal number."""
        if self.status is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None

    def end(self) -> None:
        """Sends SIGTERM and waits until Envoy ends."""
        if self.status is None:
            os.kill(self._pid, signal.SIGTERM)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def tell(self, path: str) -> None:
        """Sends a POST to the admin port. Ignores errors, because the shutdown must continue without it."""
        self._request("POST", path)

    def calls(self) -> int:
        """Returns the number of running calls, or 0 if the admin port does not answer."""
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
    """Runs Envoy until it ends by itself or a signal stops it. Returns Envoy's exit status."""
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
    """Drains Envoy. Returns when no call is running, after the grace period, or at a second signal."""
    envoy.tell("/healthcheck/fail")
    if pause(envoy, delay_seconds):
        return
    envoy.tell("/drain_listeners")
    until = time.monotonic() + grace_seconds
    while envoy.calls() and time.monotonic() < until:
        if pause(envoy, POLL_SECONDS):
            return


def pause(envoy: Envoy, seconds: float) -> bool:
    """Waits for the given time. Returns True early if Envoy has ended or another signal has arrived."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        found = signal.sigtimedwait({*ASKING, signal.SIGCHLD}, left)
        envoy.look()
        if envoy.status is not None or (found is not None and found.si_signo in ASKING):
            return True
    return False


if __name__ == "__main__":
    status = run(json.loads(sys.argv[1]))
    # As in a shell: if a signal ended Envoy, the exit status is 128 plus the signal's number.
    sys.exit(status if status >= 0 else 128 - status)
