"""The OpenAPI document as a whole."""

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gateway.openapi import system
from gateway.openapi.descriptors import Descriptors
from gateway.openapi.errors import SCHEMA, error_schema
from gateway.openapi.headers import HEADERS, PARAMETERS
from gateway.openapi.operations import API_TOKEN, SECURITY, Operations, addressed_by_paths, tag_of
from gateway.openapi.schemas import Schemas
from gateway.routes import read_routes

_DISTRIBUTION: Final = "task-manager"
# Requests and answers of a running system, by method. tests/contract/test_openapi.py writes the file and compares it with the system.
EXAMPLES: Final = Path(__file__).with_name("examples.json")

_DESCRIPTION: Final = """Tasks of users, over REST. The same methods exist in gRPC and gRPC-Web on the same port.

Log in with `POST /api/v1/auth/login` and send the `access_token` of the answer as `Authorization: Bearer …`. A script sends an API token instead
(`POST /api/v1/auth/tokens`).

- Names are in snake_case, enum values are names, times are RFC 3339 in UTC.
- The server ignores unknown fields of a body and refuses unknown query parameters.
- `null` and `[]` in a body count as absent. To clear a field, name it in `update_mask`.
- A request has at most 3 MiB.
- Every error has the same form; the reason in its ErrorInfo says what to do.
"""


def document(descriptors: bytes, examples: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the OpenAPI document for a serialized FileDescriptorSet.

    Raises DescriptorError as read_routes does, and ValueError if a method cannot be described.
    """
    found, routes = Descriptors(descriptors), read_routes(descriptors)
    schemas = Schemas(found, addressed_by_paths(found, routes))
    if examples is None:
        examples = json.loads(EXAMPLES.read_text(encoding="utf-8"))
    paths = Operations(found, schemas, examples).paths(routes)
    error = error_schema(schemas)
    # The services with public methods first, because a client begins with registration and login.
    services = dict.fromkeys(rpc.service for rpc in sorted(routes.rpcs, key=lambda rpc: not rpc.public))
    bearer = {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The access_token of a login. It expires after `expires_in` seconds.",
    }
    api_token = {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "tm_…",
        "description": "The token of `POST /api/v1/auth/tokens`, for scripts. A method that takes it names the scope that it needs.",
    }
    return {
        "openapi": "3.1.0",
        "info": _info(),
        "servers": [{"url": "/", "description": "The gateway that serves this document."}],
        "tags": [*({"name": tag_of(name), "description": found.services[name].comment} for name in services), system.TAG],
        "paths": {**paths, **system.PATHS},
        "components": {
            "schemas": {**schemas.found, SCHEMA: error},
            "parameters": PARAMETERS,
            "headers": HEADERS,
            "securitySchemes": {SECURITY: bearer, API_TOKEN: api_token},
        },
        "security": [{SECURITY: []}],
    }


def _info() -> dict[str, Any]:
    metadata = importlib.metadata.metadata(_DISTRIBUTION)
    license_ = metadata["License-Expression"]
    return {
        "title": _DISTRIBUTION,
        "version": metadata["Version"],
        "summary": metadata["Summary"],
        "description": _DESCRIPTION,
        "license": {"name": license_, "identifier": license_},
    }
