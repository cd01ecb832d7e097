"""An error in one form for REST and gRPC, so that tests can compare both with the same expectations."""

from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import grpc.aio
import httpx
from google.rpc import error_details_pb2
from grpc_status import rpc_status

_NAMES: Final = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class ApiError:
    """An error as a client sees it: the number of the gRPC code, the reason with its metadata, and the invalid fields with their descriptions."""

    code: int
    reason: str
    message: str
    fields: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """The name of the gRPC code."""
        return _NAMES[self.code]


def of_response(response: httpx.Response) -> ApiError:
    """Returns the error in a REST answer. The answer must have the standard JSON shape."""
    body: dict[str, Any] = response.json()
    assert set(body) == {"code", "message", "details"}, body
    details = {detail["@type"].rpartition(".")[2]: detail for detail in body["details"]}
    fields = {v["field"]: v["description"] for v in details.get("BadRequest", {}).get("field_violations", [])}
    info = details.get("ErrorInfo", {})
    return ApiError(body["code"], info.get("reason", ""), body["message"], fields, info.get("metadata", {}))


def of_rpc(error: grpc.aio.AioRpcError) -> ApiError:
    """Returns the error of a gRPC call."""
    status = rpc_status.from_call(error)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details if status else ():
        detail.Unpack(info)
        detail.Unpack(bad)
    fields = {violation.field: violation.description for violation in bad.field_violations}
    return ApiError(error.code().value[0], info.reason, error.details() or "", fields, dict(info.metadata))


def retry_delay(error: grpc.aio.AioRpcError) -> float:
    """Returns the delay in a gRPC error's RetryInfo, in seconds."""
    status, info = rpc_status.from_call(error), error_details_pb2.RetryInfo()
    assert status is not None
    (found,) = [detail for detail in status.details if detail.Is(info.DESCRIPTOR)]
    found.Unpack(info)
    return float(info.retry_delay.ToTimedelta().total_seconds())
