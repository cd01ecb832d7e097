"""A fake of the Kubernetes API that Helm's `lookup` needs: the discovery of kinds, and the Secrets and Jobs of one namespace."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from helm.chart import Object

_SECRETS: Final = "/api/v1/namespaces/task-manager/secrets/"
_KINDS: Final = {
    "kind": "APIResourceList",
    "groupVersion": "v1",
    "resources": [{"name": "secrets", "singularName": "secret", "namespaced": True, "kind": "Secret", "verbs": ["get", "list"]}],
}
_JOBS: Final = "/apis/batch/v1/namespaces/task-manager/jobs"
_BATCH: Final = {
    "kind": "APIResourceList",
    "groupVersion": "batch/v1",
    "resources": [{"name": "jobs", "singularName": "job", "namespaced": True, "kind": "Job", "verbs": ["get", "list"]}],
}
_GROUPS: Final = [{"name": "batch", "versions": [{"groupVersion": "batch/v1", "version": "v1"}]}]
_ANSWERS: Final[Mapping[str, Any]] = {
    "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": _GROUPS},
    "/api/v1": _KINDS,
    "/apis/batch/v1": _BATCH,
}


@contextmanager
def cluster(secrets: Mapping[str, Object], jobs: Sequence[Object] = ()) -> Iterator[str]:
    """Yields the kubeconfig of a server that serves these Secrets, by name, and Jobs. Secrets that are added to the mapping later are served too."""
    found_jobs = {"kind": "JobList", "apiVersion": "batch/v1", "metadata": {}, "items": list(jobs)}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            found = found_jobs if path == _JOBS else _ANSWERS.get(path) or secrets.get(path.removeprefix(_SECRETS))
            missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            body = json.dumps(found or missing).encode()
            self.send_response(200 if found else 404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Logs nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield kubeconfig(f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()


def kubeconfig(address: str, token: str = "") -> str:
    """Returns a kubeconfig for a server on this machine. It does not verify the server's certificate."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": address, "insecure-skip-tls-verify": True}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {"token": token} if token else {}}],
        "current-context": "c",
    }
    return json.dumps(content)
