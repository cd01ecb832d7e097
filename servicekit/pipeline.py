"""What happens around every handler. Applied once, at registration.

observe (request id, one log line, metrics: sees every outcome, also a failed authentication)
→ authenticate (who calls) → authorize (may they: by the method's `access`; before validation, AIP-211) → validate → handler.

Outside of this, `servicekit.server` adapts grpc's context, traces, and is the only place that aborts a call.
"""

import asyncio
import hmac
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc
import protovalidate
from google.protobuf.message import Message
from taskmanager.rpc.v1 import access_pb2
from uuid_utils import uuid4

from servicekit import deadline
from servicekit.call import Call, Handler
from servicekit.call_log import CallLog
from servicekit.errors import AccessDenied, DeadlineExceeded, InvalidField, MalformedRequest, Overloaded, Violation
from servicekit.identity import Identity, bearer_token
from servicekit.method import Method
from servicekit.metrics import CallMetrics
from servicekit.status import failure_of

ORIGINAL_PATH: Final = "x-envoy-original-path"
# Violations travel in the trailers, for which clients have 8 KiB.
MAX_VIOLATIONS: Final = 20
THOROUGH_BYTES: Final = 8 * 1024
_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")


class Verifier(Protocol):
    """Tells who an access token speaks for."""

    async def verify(self, token: str) -> Identity:
        """Raises TokenInvalid or DependencyUnavailable."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What the layers need. `default_deadline_seconds` is for calls that come without one; more than `max_concurrent_calls` are refused.

    Whoever has one of `service_tokens` is one of the system's own services.
    """

    verifier: Verifier
    service_tokens: Sequence[str]
    metrics: CallMetrics
    call_log: CallLog
    default_deadline_seconds: float
    max_concurrent_calls: int

    def wrap(self, method: Method, handler: Handler) -> Handler:
        """The handler with all layers around it. What the handler raises leaves it as Failure, and CancelledError as it is."""
        return self._observe(method, self._authenticate(method, _validate(method, handler)))

    def _observe(self, method: Method, inner: Handler) -> Handler:
        meter = self.metrics.of(method)
        # The system's own services are few, and what they ask must not wait for what strangers do.
        limit = self._limit(inner, self.max_concurrent_calls if method.access != access_pb2.ACCESS_INTERNAL else None)

        async def observed(request: Any, call: Call) -> Message:
            call.request_id = _request_id(call.metadata.get("x-request-id"))
            started = time.perf_counter()
            meter.started.inc()
            code, error, reason = grpc.StatusCode.OK, None, ""
            try:
                return await limit(request, call)
            except asyncio.CancelledError:
                code = grpc.StatusCode.CANCELLED
                raise
            except Exception as cause:
                failure, error = failure_of(cause), cause
                code, reason = failure.code, failure.reason
                raise failure from cause
            finally:
                seconds = time.perf_counter() - started
                meter.handled(code, seconds)
                self.call_log.write(method, call, code, reason, seconds, error)

        return observed

    def _limit(self, inner: Handler, most: int | None) -> Handler:
        """Bounds the calls under way and the time of each: `maximum_concurrent_rpcs` would count probes and streams too."""
        under_way = self.metrics.under_way

        async def limited(request: Any, call: Call) -> Message:
            if most is not None and under_way.count >= most:
                raise Overloaded
            seconds = self.default_deadline_seconds if call.time_remaining is None else call.time_remaining
            under_way.count += 1
            try:
                deadline.begin(seconds)
                async with asyncio.timeout(seconds) as timeout:
                    return await inner(request, call)
            except TimeoutError as error:
                raise (DeadlineExceeded() if timeout.expired() else error) from error
            finally:
                under_way.count -= 1

        return limited

    def _authenticate(self, method: Method, inner: Handler) -> Handler:
        """Public methods look at no token; internal ones are open to no user, but to the service token. The rest need a good access token."""
        if method.access == access_pb2.ACCESS_PUBLIC:
            return inner
        if method.access == access_pb2.ACCESS_INTERNAL:
            return self._internal(inner)
        if method.access != access_pb2.ACCESS_AUTHENTICATED:
            return _denied
        verify = self.verifier.verify

        async def authenticated(request: Any, call: Call) -> Message:
            call.caller = await verify(bearer_token(call.metadata.get("authorization")))
            return await inner(request, call)

        return authenticated

    def _internal(self, inner: Handler) -> Handler:
        accepted = [token.encode() for token in self.service_tokens]

        async def internal(request: Any, call: Call) -> Message:
            given = bearer_token(call.metadata.get("authorization")).encode()
            if not any(hmac.compare_digest(given, token) for token in accepted):
                raise AccessDenied
            return await inner(request, call)

        return internal


async def _denied(_: Any, __: Call) -> Message:
    raise AccessDenied


def _validate(method: Method, inner: Handler) -> Handler:
    """Protovalidate's rules, and that body and query do not contradict the path."""
    collect = protovalidate.Validator().collect_violations
    path = method.path

    async def validated(request: Any, call: Call) -> Message:
        if request is None:
            raise MalformedRequest
        # A large message can break a rule once for every few bytes: then the first has to do.
        violations = collect(request, fail_fast=request.ByteSize() > THOROUGH_BYTES)
        if violations:
            raise InvalidField(*map(_violation, violations[:MAX_VIOLATIONS]))
        if path is not None and (original := call.metadata.get(ORIGINAL_PATH)):
            path.check(original, request)
        return await inner(request, call)

    return validated


def _violation(violation: protovalidate.Violation) -> Violation:
    proto = violation.proto
    path = ""
    for element in proto.field.elements if proto.field else ():
        path += ("." if path else "") + element.field_name
        if element.subscript is not None:
            path += f"[{element.subscript.value}]"
    return Violation(path, proto.message or proto.rule_id)


def _request_id(given: str | None) -> str:
    return given if given and _REQUEST_ID.fullmatch(given) else str(uuid4())
