"""Assertions on the form of an error, whether Envoy or a service returns it."""

from typing import Any

import httpx
from google.rpc import error_details_pb2
from grpc_status import rpc_status


def assert_error(response: httpx.Response, status: int, code: int, reason: str | None = None) -> None:
    """Asserts that the response is an error in the common form with this HTTP status, gRPC code and reason (None: no ErrorInfo)."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"code", "message", "details"}
    assert body["code"] == code
    assert body["message"]
    infos = [detail for detail in body["details"] if detail["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"]
    expected = (
        [] if reason is None else [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "taskmanager", "metadata": {}}]
    )
    assert infos == expected


def reason_of(error: Any) -> str | None:
    """Returns the reason in the ErrorInfo of a gRPC error, or None if it has no ErrorInfo."""
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason
    return None
