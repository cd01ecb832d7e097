"""`smoke.py HOST:PORT`: tests a running system as a client: registers, logs in, creates tasks and watches them, over REST and gRPC.

It needs only the modules in the image of task-service. It checks every answer; the first wrong one ends it with status 1.
"""

import http.client
import json
import secrets
import sys
import time
from typing import Any

import grpc
from taskmanager.task.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc

TIMEOUT_SECONDS = 10
# The gateway may answer before the services of a new release have started.
READY_SECONDS = 120
# Typed Any, because a version without WatchTasks has no messages for it.
MESSAGES: Any = task_service_pb2


class Rest:
    """A REST client with one connection."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=TIMEOUT_SECONDS)
        self.token = ""

    def call(self, method: str, path: str, body: object = None, *, expect: int = 200) -> Any:
        """Sends a request and returns the JSON of the answer. Ends the test if the answer has another status than `expect`."""
        self.send(method, path, body)
        response = self._connection.getresponse()
        text = response.read().decode()
        if response.status != expect:
            raise SystemExit(f"{method} {path}: {response.status} instead of {expect}: {text[:500]}")
        return json.loads(text or "{}")

    def send(self, method: str, path: str, body: object = None) -> None:
        """Sends a request. Does not read the answer."""
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {self.token}"} if self.token else {})
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)

    def events(self, path: str) -> Any:
        """Yields the JSON of the server-sent events of a path, until the generator is closed."""
        self.send("GET", path)
        response = self._connection.getresponse()
        if response.status != http.client.OK:
            raise SystemExit(f"GET {path}: {response.status}: {response.read(500)!r}")
        for line in response:
            if line.startswith(b"data:"):
                yield json.loads(line.removeprefix(b"data:"))


def main() -> None:
    """Runs all steps in the order of a new user."""
    address = sys.argv[1]
    rest = Rest(address)
    wait_until_ready(address)
    done("ready")
    account = {"email": f"smoke-{secrets.token_hex(8)}@example.com", "password": secrets.token_urlsafe(24)}
    rest.call("POST", "/api/v1/auth/register", account | {"name": "Smoke test"}, expect=201)
    rest.token = rest.call("POST", "/api/v1/auth/login", account)["access_token"]
    done("registered and logged in")
    try:
        with grpc.insecure_channel(address) as channel:
            tasks: Any = task_service_pb2_grpc.TaskServiceStub(channel)  # type: ignore[no-untyped-call] # generated without types
            read_each_others(tasks, rest)
            if not hasattr(tasks, "WatchTasks"):
                done("this version has no watch")
                return
            watch_by_grpc(tasks, rest)
            watch_by_rest(address, rest)
    finally:
        rest.call("POST", "/api/v1/users/me:delete", {"password": account["password"]})
        done("the account is deleted")


def wait_until_ready(address: str) -> None:
    """Waits until the gateway reports that both services are ready."""
    end = time.monotonic() + READY_SECONDS
    while True:
        connection = http.client.HTTPConnection(address, timeout=TIMEOUT_SECONDS)
        try:
            connection.request("GET", "/ready")
            status: object = connection.getresponse().status
        except OSError as error:
            status = error
        finally:
            connection.close()
        if status == http.client.OK:
            return
        if time.monotonic() > end:
            raise SystemExit(f"GET /ready: {status} after {READY_SECONDS} s")
        time.sleep(1)


def options(rest: Rest) -> dict[str, Any]:
    """Returns the metadata and the timeout of a gRPC call."""
    return {"metadata": [("authorization", f"Bearer {rest.token}")], "timeout": TIMEOUT_SECONDS}


def read_each_others(tasks: Any, rest: Rest) -> None:
    """Creates a task over REST and reads it over gRPC, and the other way round."""
    by_rest = rest.call("POST", "/api/v1/tasks", {"title": "Made by REST"}, expect=201)
    expect(tasks.GetTask(task_service_pb2.GetTaskRequest(id=by_rest["id"]), **options(rest)).title, "Made by REST")
    by_grpc = tasks.CreateTask(task_service_pb2.CreateTaskRequest(task=task_pb2.Task(title="Made by gRPC")), **options(rest))
    expect(rest.call("GET", f"/api/v1/tasks/{by_grpc.id}")["title"], "Made by gRPC")
    done("made by REST and by gRPC, and read by the other")


def watch_by_grpc(tasks: Any, rest: Rest) -> None:
    """Watches over gRPC, and expects the change that is made after the watch began."""
    stream = tasks.WatchTasks(MESSAGES.WatchTasksRequest(), **options(rest))
    name = MESSAGES.WatchTasksResponse.Kind.Name
    try:
        expect(name(next(stream).kind), "CHECKPOINT")
        rest.call("POST", "/api/v1/tasks", {"title": "Watched by gRPC"}, expect=201)
        seen = next(message for message in stream if name(message.kind) != "CHECKPOINT")
        expect((name(seen.kind), seen.task.title), ("CREATED", "Watched by gRPC"))
    finally:
        stream.cancel()
    done("watched by gRPC")


def watch_by_rest(address: str, rest: Rest) -> None:
    """Watches over server-sent events, on a second connection, and expects the change that is made after the watch began."""
    watcher = Rest(address)
    watcher.token = rest.token
    events = watcher.events("/api/v1/tasks:watch")
    expect(next(events)["kind"], "CHECKPOINT")
    rest.call("POST", "/api/v1/tasks", {"title": "Watched by REST"}, expect=201)
    seen = next(event for event in events if event["kind"] != "CHECKPOINT")
    expect((seen["kind"], seen["task"]["title"]), ("CREATED", "Watched by REST"))
    done("watched by REST")


def expect(found: object, wanted: object) -> None:
    """Ends the test if the values differ."""
    if found != wanted:
        raise SystemExit(f"found {found!r} instead of {wanted!r}")


def done(what: str) -> None:
    """Prints that a step has succeeded."""
    sys.stdout.write(f"ok: {what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except (OSError, http.client.HTTPException, grpc.RpcError, StopIteration) as error:
        # The last printed step tells how far the test came.
        raise SystemExit(f"{type(error).__name__}: {error}") from error
