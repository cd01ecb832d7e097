"""Maps an error to what the client receives: a gRPC code and google.rpc details (AIP-193). One pure function, `failure_of`."""

import math
from typing import Any, Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from servicekit.errors import InternalError, Kind, ServiceError

DOMAIN: Final = "taskmanager"
DETAILS_KEY: Final = "grpc-status-details-bin"
RETRY_AFTER_KEY: Final = "retry-after"

CODES: Final = {
    Kind.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Kind.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Kind.DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Kind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Kind.ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Kind.FAILED_PRECONDITION: grpc.StatusCode.FAILED_PRECONDITION,
    Kind.ABORTED: grpc.StatusCode.ABORTED,
    Kind.OUT_OF_RANGE: grpc.StatusCode.OUT_OF_RANGE,
    Kind.EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Kind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Kind.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
    Kind.INTERNAL: grpc.StatusCode.INTERNAL,
}


class Failure(Exception):
    """The exception that the pipeline raises when a call fails. It has everything that `servicekit.rpc.server` needs to end the call."""

    def __init__(self, error: ServiceError) -> None:
        super().__init__(str(error))
        self.code = CODES[error.kind]
        self.reason = error.reason
        self.message = str(error)
        self.trailing_metadata = _trailing_metadata(self.code, error)


def failure_of(error: Exception) -> Failure:
    """Returns the failure that the client receives for `error`. An error that is not a ServiceError becomes INTERNAL with a fixed message."""
    return Failure(error if isinstance(error, ServiceError) else InternalError())


def _trailing_metadata(code: grpc.StatusCode, error: ServiceError) -> tuple[tuple[str, str | bytes], ...]:
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)]
    if error.violations:
        fields = [error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description) for v in error.violations]
        details.append(error_details_pb2.BadRequest(field_violations=fields))
    if error.retry_after_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_seconds * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=code.value[0], message=str(error))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    metadata: tuple[tuple[str, str | bytes], ...] = ((DETAILS_KEY, status.SerializeToString()),)
    if error.retry_after_seconds is not None:
        # Over REST, this is a header (RFC 9110 §10.2.3), in whole seconds.
        metadata += ((RETRY_AFTER_KEY, str(math.ceil(error.retry_after_seconds))),)
    return metadata
