"""A receiver of webhooks on this machine: an HTTP server on the loopback interface that verifies what it gets. It prints nothing."""

import json
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from typing import Any, Final

from task_manager_client.cli.signatures import NotVerified, verify
from task_manager_client.json_fields import Json

_HOST: Final = "127.0.0.1"
# More than the largest task has.
_MAX_BYTES: Final = 1024 * 1024
_TIMEOUT_SECONDS: Final = 10.0
_LENGTH: Final = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class Event:
    """A message whose signature is right. `id` is the same in every attempt to send it."""

    id: str
    body: Json


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that was refused, and why."""

    reason: str


class Receiver(ThreadingHTTPServer):
    """Answers 204 to a request whose signature is right, and an error to any other. `arrived` has both, in their order."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        """Binds the port, 0 for a free one. Raises OSError if it is in use. `keys`, those of the secrets, must be set before it runs."""
        super().__init__((_HOST, port), _Handler)
        self.keys: Sequence[bytes] = ()
        self.arrived: SimpleQueue[Event | Refusal] = SimpleQueue()

    @property
    def url(self) -> str:
        """The address to which webhooks are sent."""
        return f"http://{_HOST}:{self.server_address[1]}/"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serves in the background, as long as the context lasts."""
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing about a connection that ends early."""


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    timeout = _TIMEOUT_SECONDS

    def do_POST(self) -> None:
        status, arrived = self._received()
        self.send_response(status)
        self.end_headers()
        # After the answer: the receiver may end when it has printed the event.
        self.wfile.flush()
        self.server.arrived.put(arrived)

    def _received(self) -> tuple[HTTPStatus, Event | Refusal]:
        headers = {name.lower(): value for name, value in self.headers.items()}
        length = headers.get("content-length", "")
        if not _LENGTH.fullmatch(length):
            return HTTPStatus.LENGTH_REQUIRED, Refusal("it has no length")
        if int(length) > _MAX_BYTES:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, Refusal("it is larger than 1 MiB")
        body = self.rfile.read(int(length))
        try:
            message_id = verify(headers, body, self.server.keys, time.time())
            message = json.loads(body)
        except NotVerified as error:
            return HTTPStatus.BAD_REQUEST, Refusal(str(error))
        except ValueError:
            return HTTPStatus.BAD_REQUEST, Refusal("it is not JSON")
        if not isinstance(message, dict):
            return HTTPStatus.BAD_REQUEST, Refusal("it is not a JSON object")
        return HTTPStatus.NO_CONTENT, Event(message_id, message)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in http.server
        """Prints nothing: the command prints what arrives."""
