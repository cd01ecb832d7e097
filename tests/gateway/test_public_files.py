"""/openapi.json and /docs: served to everyone by the gateway itself, with an ETag, compressed if the client takes it, and under a strict policy."""

import json
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway import public_files
from gateway.config import render
from gateway.openapi.document import document
from gateway.settings import GatewaySettings, SettingsError
from tests.gateway import certificates
from tests.gateway.errors import assert_error
from tests.gateway.stack import DESCRIPTORS, Gateway, Stack, gateway_behind
from tests.support.tiers import first_quick

OPENAPI, PAGE = "/openapi.json", "/docs"
PATHS = [OPENAPI, *(file.path for file in public_files.page())]
POLICY = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'"


def _get(gateway: Gateway, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    return gateway.request(method, path, token=False, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_the_document_is_that_of_the_descriptors(gateway: Gateway) -> None:
    answer = _get(gateway, OPENAPI)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == json.loads(json.dumps(document(DESCRIPTORS.read_bytes())))


@pytest.mark.parametrize("path", first_quick(PATHS))
def test_every_form_has_the_same_content_and_an_etag_of_its_own(gateway: Gateway, path: str) -> None:
    plain, gzipped = _get(gateway, path, accept_encoding="identity"), _get(gateway, path, accept_encoding="br, gzip")
    assert plain.status_code == gzipped.status_code == 200
    assert plain.content == gzipped.content
    assert "content-encoding" not in plain.headers
    if path.endswith(".png"):
        return
    assert gzipped.headers["content-encoding"] == "gzip"
    assert int(gzipped.headers["content-length"]) < len(plain.content)
    assert plain.headers["etag"] != gzipped.headers["etag"]
    for form in (plain, gzipped):
        assert "accept-encoding" in form.headers["vary"].lower()
    assert "content-encoding" not in _get(gateway, path, accept_encoding="gzip;q=0").headers


@pytest.mark.parametrize("path", first_quick(PATHS))
def test_a_client_that_has_the_file_gets_304(gateway: Gateway, path: str) -> None:
    for encoding in ("identity", "gzip"):
        etag = _get(gateway, path, accept_encoding=encoding).headers["etag"]
        for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            answer = _get(gateway, path, accept_encoding=encoding, if_none_match=known)
            assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (304, b"", "no-cache")
            assert "location" not in answer.headers
    assert _get(gateway, path, if_none_match='"other"').status_code == 200


@pytest.mark.parametrize("path", first_quick(PATHS))
def test_head_and_other_methods(gateway: Gateway, path: str) -> None:
    head = _get(gateway, path, "HEAD", accept_encoding="identity")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == len(_get(gateway, path, accept_encoding="identity").content)
    answer = _get(gateway, path, "POST")
    assert_error(answer, 405, 12)
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", first_quick(PATHS[1:]))
def test_the_page_may_load_and_call_only_the_gateway(gateway: Gateway, path: str) -> None:
    headers = _get(gateway, path).headers
    assert headers["content-security-policy"].startswith(f"{POLICY}; ")
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")


def test_a_query_changes_nothing_and_paths_beside_the_files_stay_closed(gateway: Gateway) -> None:
    assert _get(gateway, f"{OPENAPI}?version=1").status_code == _get(gateway, f"{PAGE}?x=1").status_code == 200
    for path in ("/docs/", "/docs/../openapi.json/x", "/docs/swagger-ui-bundle.js.gz", "/docs/LICENSE", "/openapi.jso", "/openapi.json/"):
        assert_error(_get(gateway, path), 401, 16, "TOKEN_MISSING")


def test_the_page_can_be_switched_off(stack: Stack) -> None:
    with gateway_behind(stack, docs_enabled=False) as gateway:
        assert _get(gateway, OPENAPI).status_code == 200
        assert [_get(gateway, path).status_code for path in PATHS[1:]] == [401] * len(PATHS[1:])


def test_over_tls_the_page_has_hsts(stack: Stack, tmp_path: Path) -> None:
    certificate, key = certificates.write(tmp_path)
    trusting = ssl.create_default_context(cafile=str(certificate))
    with (
        gateway_behind(stack, tls_cert_file=certificate, tls_key_file=key) as gateway,
        httpx.Client(verify=trusting, base_url=f"https://127.0.0.1:{gateway.settings.tls_port}") as client,
    ):
        for path in (OPENAPI, PAGE):
            assert client.get(path).headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"
            assert "strict-transport-security" not in _get(gateway, path).headers


def test_a_missing_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(public_files, "_SWAGGER_UI", tmp_path)
    with pytest.raises(SettingsError, match=r"swagger-ui\.css.*; install the package again, or set DOCS_ENABLED=false"):
        render(GatewaySettings(), DESCRIPTORS)
    assert "/openapi.json" in render(GatewaySettings(docs_enabled=False), DESCRIPTORS)


def test_calls_of_the_api_do_not_pass_the_routes_of_the_files() -> None:
    manager: Any = yaml.safe_load(render(GatewaySettings(), DESCRIPTORS))["static_resources"]["listeners"][0]
    (host,) = manager["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
    matches = [route["match"].get("path") or route["match"].get("prefix", "") for route in host["routes"]]
    assert matches.index("/api/v1/") < matches.index(OPENAPI)
    assert all(matches.index(match) < matches.index(OPENAPI) for match in matches if match.startswith("/taskmanager."))
