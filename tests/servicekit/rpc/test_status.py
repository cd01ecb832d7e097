"""Maps an error to the status that the client receives (AIP-193)."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from auth_service.passwords.errors import TooManyAttempts
from servicekit.errors import DependencyUnavailable, InvalidField, Kind, Overloaded, ServiceError, TokenMissing, Violation
from servicekit.rpc.status import CODES, DETAILS_KEY, RETRY_AFTER_KEY, failure_of


def status_of(error: Exception) -> status_pb2.Status:
    key, value = failure_of(error).trailing_metadata[0]
    assert key == DETAILS_KEY
    assert isinstance(value, bytes)
    return status_pb2.Status.FromString(value)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TokenMissing(), grpc.StatusCode.UNAUTHENTICATED),
        (InvalidField.of("a", "b"), grpc.StatusCode.INVALID_ARGUMENT),
        (Overloaded(), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (DependencyUnavailable("PostgreSQL"), grpc.StatusCode.UNAVAILABLE),
        (ZeroDivisionError("a secret"), grpc.StatusCode.INTERNAL),
    ],
)
def test_code_message_and_reason(error: Exception, code: grpc.StatusCode) -> None:
    failure, status = failure_of(error), status_of(error)
    assert (failure.code, status.code, status.message) == (code, code.value[0], failure.message)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.domain, info.reason) == ("taskmanager", failure.reason)
    assert "secret" not in str(status)


def test_wrong_fields_are_named() -> None:
    status = status_of(InvalidField(Violation("a.b[1]", "is too long"), Violation("c", "is missing")))
    bad = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad)
    assert [(v.field, v.description) for v in bad.field_violations] == [("a.b[1]", "is too long"), ("c", "is missing")]


def test_when_to_try_again_is_said() -> None:
    retry = error_details_pb2.RetryInfo()
    assert status_of(Overloaded()).details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 1000
    assert len(status_of(TokenMissing()).details) == 1


@pytest.mark.parametrize(("seconds", "header"), [(1.0, "1"), (0.2, "1"), (59.001, "60"), (3600, "3600")])
def test_when_to_try_again_is_also_a_header_in_whole_seconds(seconds: float, header: str) -> None:
    assert failure_of(TooManyAttempts(seconds)).trailing_metadata[1:] == ((RETRY_AFTER_KEY, header),)
    retry = error_details_pb2.RetryInfo()
    assert status_of(TooManyAttempts(seconds)).details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == round(seconds * 1000)


def test_without_a_time_there_is_no_header() -> None:
    assert len(failure_of(TokenMissing()).trailing_metadata) == 1


def test_metadata_is_carried() -> None:
    info = error_details_pb2.ErrorInfo()
    status_of(DependencyUnavailable("Redis")).details[0].Unpack(info)
    assert dict(info.metadata) == {"dependency": "Redis"}


def test_a_bare_service_error_is_internal() -> None:
    assert failure_of(ServiceError()).code is grpc.StatusCode.INTERNAL


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_has_a_code_of_its_own(kind: Kind) -> None:
    error = ServiceError()
    error.kind = kind
    code = failure_of(error).code
    assert [other for other in Kind if CODES[other] is code] == [kind]
    # For these three, only the gRPC name tells them apart.
    if kind in {Kind.ABORTED, Kind.FAILED_PRECONDITION, Kind.OUT_OF_RANGE}:
        assert code.name == kind.name
