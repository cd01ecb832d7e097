"""A stand-in for a service or the gateway. It answers 200 on its HTTP port. STANDIN_FAULT (`name=fault`) gives one stand-in a fault.

A migration writes its environment to a file in the directory STANDIN_ENVIRONMENTS.
"""

import http.server
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

COMMAND = sys.argv[-1]
KIND = f"{sys.argv[1]}-worker" if COMMAND == "work" else sys.argv[1]
PORT = int(os.environ["GATEWAY_PORT" if KIND == "gateway" else "OPS_PORT"]) if COMMAND in {"run", "work"} else 0


def fault() -> str:
    """Returns the fault that STANDIN_FAULT sets for this process, or an empty string."""
    name, _, kind = os.environ.get("STANDIN_FAULT", "").partition("=")
    return kind if name in {KIND, f"{KIND}-{COMMAND}"} else ""


class Answer(http.server.BaseHTTPRequestHandler):
    """Answers every request with 200 and the environment as JSON. With the fault `unready` the status is 503."""

    def do_GET(self) -> None:
        self.send_response(503 if fault() == "unready" else 200)
        self.end_headers()
        self.wfile.write(json.dumps(dict(os.environ)).encode())

    def log_message(self, *_: object) -> None:
        """Keeps the log empty."""


def end(_number: int, _frame: FrameType | None) -> None:
    """Appends this kind to the journal, which records the stop order, and exits."""
    if "STANDIN_JOURNAL" in os.environ:
        with Path(os.environ["STANDIN_JOURNAL"]).open("a") as journal:
            journal.write(f"{KIND}\n")
    os._exit(0)


def main() -> None:
    """Runs the command `run`, `work` or `migrate`."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN if fault() == "deaf" else end)
    sys.stdout.write(f"stand-in for {KIND} {COMMAND}\n")
    sys.stdout.flush()
    if fault() == "fail":
        sys.exit("this stand-in was told to fail")
    if fault() == "hang":
        time.sleep(600)
    if COMMAND == "migrate" and "STANDIN_ENVIRONMENTS" in os.environ:
        Path(os.environ["STANDIN_ENVIRONMENTS"], f"{KIND}.json").write_text(json.dumps(dict(os.environ)))
    if COMMAND in {"run", "work"}:
        http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Answer).serve_forever()


main()
