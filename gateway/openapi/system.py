"""The paths that the gateway serves itself or forwards as they are. They belong to no RPC, so envoy.yaml.j2 and this module name them."""

from typing import Any, Final

TAG: Final = {"name": "System", "description": "The state of the system and the keys that verify access tokens."}


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _status(value: str) -> dict[str, Any]:
    return {"type": "object", "properties": {"status": {"type": "string", "const": value}}, "required": ["status"]}


def _get(name: str, summary: str, responses: dict[str, Any]) -> dict[str, Any]:
    return {"get": {"operationId": name, "tags": [TAG["name"]], "summary": summary, "security": [], "responses": responses}}


_KEY: Final = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("kty", "crv", "alg", "use", "kid", "x")},
    "required": ["kty", "kid"],
}
_KEYS: Final = {"type": "object", "properties": {"keys": {"type": "array", "items": _KEY}}, "required": ["keys"]}
_ERROR: Final = {"$ref": "#/components/schemas/Error"}

PATHS: Final[dict[str, Any]] = {
    "/health": _get("getHealth", "Says that the gateway is running", {"200": _answer("The gateway is running.", _status("healthy"))}),
    "/ready": _get(
        "getReadiness",
        "Says whether the system can serve requests",
        {"200": _answer("Every service is ready.", _status("ready")), "503": _answer("A service is not ready.", _ERROR)},
    ),
    "/.well-known/jwks.json": _get(
        "getJwks",
        "Returns the public keys that verify access tokens (RFC 7517)",
        {
            "200": _answer("The keys.", _KEYS),
            "429": _answer("Too many requests.", _ERROR),
            "503": _answer("The keys are not available.", _ERROR),
            "504": _answer("The keys are not available.", _ERROR),
        },
    ),
}
