"""The files that the gateway serves itself to everyone: the OpenAPI document and the page that shows it, as direct responses of Envoy."""

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.openapi.document import document

_HERE: Final = Path(__file__).resolve().parent / "docs"
_SWAGGER_UI: Final = _HERE / "swagger_ui"

# The page loads only its own files and sends requests only to the gateway. Swagger UI sets style attributes, and its style sheet has images as data.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_OF_PAGES: Final = {"content-security-policy": _POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
_OVER_TLS: Final = {"strict-transport-security": "max-age=31536000; includeSubDomains"}
# A client may store the file, but must ask every time whether it has changed. The answer is then a 304 without a body.
_CACHING: Final = {"cache-control": "no-cache", "vary": "accept-encoding"}
_DISABLED: Final = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
# The filters that would require a token, or refuse a path that belongs to no RPC.
_WITHOUT: Final = dict.fromkeys(("api_tokens", "envoy.filters.http.jwt_authn", "envoy.filters.http.grpc_json_transcoder"), _DISABLED)
_READS: Final = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD"}}}
_TAKES_GZIP: Final = (
    {"name": "accept-encoding", "string_match": {"contains": "gzip"}},
    {"name": "accept-encoding", "string_match": {"contains": "gzip;q=0"}, "invert_match": True},
)


class MissingFile(ValueError):
    """A file of the page is missing from the installation."""


@dataclass(frozen=True)
class PublicFile:
    """A file and its forms, each as Envoy's DataSource. `gzipped` is None for a file that does not become smaller."""

    path: str
    content_type: str
    digest: str
    plain: Mapping[str, str]
    gzipped: Mapping[str, str] | None
    headers: Mapping[str, str] = field(default_factory=lambda: _OF_PAGES)

    def routes(self, *, tls: bool) -> Iterator[dict[str, Any]]:
        """Yields Envoy's routes for the path, the first that matches answers: not modified, compressed, as it is, another method."""
        common = {**_CACHING, **self.headers, **(_OVER_TLS if tls else {})}
        typed = {**common, "content-type": self.content_type}
        known = {"name": "if-none-match", "string_match": {"safe_regex": {"regex": rf'\*|.*"{self.digest}(-gzip)?".*'}}}
        yield self._route(304, {**common, "etag": f'"{self.digest}"'}, (_READS, known))
        if self.gzipped is not None:
            headers = {**typed, "content-encoding": "gzip", "etag": f'"{self.digest}-gzip"'}
            yield self._route(200, headers, (_READS, *_TAKES_GZIP), self.gzipped)
        yield self._route(200, {**typed, "etag": f'"{self.digest}"'}, (_READS,), self.plain)
        yield self._route(405, {"allow": "GET, HEAD"}, ())

    def _route(self, status: int, headers: Mapping[str, str], conditions: tuple[Any, ...], body: Mapping[str, str] | None = None) -> dict[str, Any]:
        added = [{"append_action": "OVERWRITE_IF_EXISTS_OR_ADD", "header": {"key": key, "value": value}} for key, value in headers.items()]
        return {
            "match": {"path": self.path, "headers": list(conditions)},
            "direct_response": {"status": status} | ({"body": dict(body)} if body else {}),
            "response_headers_to_add": added,
            "response_headers_to_remove": ["location"],  # Envoy adds it to every direct response with a status from 300 to 399
            "typed_per_filter_config": _WITHOUT,
        }


def openapi(descriptors: bytes) -> PublicFile:
    """Returns the OpenAPI document."""
    content = json.dumps(document(descriptors), ensure_ascii=False).encode()
    return _inline("/openapi.json", "application/json", content, headers={})


def page() -> Iterator[PublicFile]:
    """Yields the files of the page. Raises MissingFile if the installation lacks one of them."""
    yield _inline("/docs", "text/html; charset=utf-8", _content(_HERE / "page.html"))
    yield _inline("/docs/page.css", "text/css; charset=utf-8", _content(_HERE / "page.css"))
    yield _inline("/docs/page.js", "text/javascript; charset=utf-8", _content(_HERE / "page.js"))
    yield _stored("/docs/swagger-ui.css", "text/css; charset=utf-8")
    yield _stored("/docs/swagger-ui-bundle.js", "text/javascript; charset=utf-8")
    yield _stored("/docs/favicon-32x32.png", "image/png")


def _inline(path: str, content_type: str, content: bytes, headers: Mapping[str, str] = _OF_PAGES) -> PublicFile:
    """Returns a file that is part of Envoy's configuration."""
    gzipped = {"inline_bytes": base64.b64encode(gzip.compress(content, mtime=0)).decode()}
    return PublicFile(path, content_type, _digest(content), {"inline_string": content.decode()}, gzipped, headers)


def _stored(path: str, content_type: str) -> PublicFile:
    """Returns a file of Swagger UI. Envoy reads it when it reads its configuration."""
    file = _SWAGGER_UI / path.rpartition("/")[2]
    gzipped = file.with_name(f"{file.name}.gz")
    return PublicFile(path, content_type, _digest(_content(file)), {"filename": str(file)}, {"filename": str(gzipped)} if gzipped.exists() else None)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise MissingFile(f"DOCS_ENABLED: {error}; install the package again, or set DOCS_ENABLED=false") from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
