"""Decides whether a call may reach its handler. Unary methods and streaming methods have the same checks.

authenticate → authorize (by the method's `access` and, for API tokens, its `scope`; before validation, AIP-211), then, with the request, → validate.
"""

import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

import protovalidate
from taskmanager.rpc.v1 import access_pb2

from servicekit.errors import AccessDenied, InvalidField, MalformedRequest, ScopeMissing, SessionRequired, TokenInvalid, Violation
from servicekit.identity import Identity, acting_user, bearer_token
from servicekit.rpc.call import ORIGINAL_PATH, Call, Check
from servicekit.rpc.method import Method

# Violations are sent in the trailers, for which clients accept 8 KiB.
MAX_VIOLATIONS: Final = 20
THOROUGH_BYTES: Final = 8 * 1024
# Of a metadata key, in an error.
MAX_KEY_CHARACTERS: Final = 100

# Returns None if the caller may call the method, or something to wait for first. It, or the wait, raises TokenMissing, TokenInvalid, AccessDenied,
# SessionRequired, ScopeMissing or DependencyUnavailable. Only a token that is not known yet needs the wait.
Authorization: TypeAlias = Callable[[Call], Awaitable[None] | None]
# Raises MalformedRequest for None, and InvalidField.
Validation: TypeAlias = Callable[[Any, Call], None]


class Verifier(Protocol):
    """Verifies access tokens."""

    def known(self, token: str) -> Identity | None:
        """Returns the identity of a token that was verified before, or None. Raises TokenInvalid or DependencyUnavailable."""

    async def verify(self, token: str) -> Identity:
        """Returns the token's identity. Raises TokenInvalid or DependencyUnavailable."""


class NoTokens:
    """The Verifier of a process without methods for users."""

    def known(self, _: str) -> Identity | None:
        """See Verifier.known."""
        raise TokenInvalid

    async def verify(self, _: str) -> Identity:
        """See Verifier.verify."""
        raise TokenInvalid


def authorization(method: Method, verifier: Verifier, service_tokens: Sequence[str]) -> Authorization:
    """Returns the check of a method's callers, selected once at its registration.

    Public methods ignore tokens. Internal methods accept only service tokens. All other methods require a valid access token.
    """
    if method.access == access_pb2.ACCESS_PUBLIC:
        return _anybody
    if method.access == access_pb2.ACCESS_INTERNAL:
        return _internal(service_tokens)
    if method.access != access_pb2.ACCESS_AUTHENTICATED:
        return _denied
    known, verify, scope = verifier.known, verifier.verify, method.scope

    def authenticated(call: Call) -> Awaitable[None] | None:
        token = bearer_token(call.metadata.get("authorization"))
        identity = known(token)
        if identity is None:
            return verified(token, call)
        call.caller = identity
        acting_user.set(identity.user_id)
        if identity.scopes is not None:
            _require_scope(scope, identity.scopes)
        return None

    async def verified(token: str, call: Call) -> None:
        call.caller = await verify(token)
        acting_user.set(call.caller.user_id)
        if call.caller.scopes is not None:
            _require_scope(scope, call.caller.scopes)

    return authenticated


def _require_scope(scope: str, granted: frozenset[str]) -> None:
    """Raises SessionRequired if the method takes no API token, ScopeMissing if the API token does not grant its scope."""
    if not scope:
        raise SessionRequired
    if scope not in granted:
        raise ScopeMissing(scope)


def _internal(service_tokens: Sequence[str]) -> Authorization:
    accepted = [token.encode() for token in service_tokens]

    def internal(call: Call) -> None:
        given = bearer_token(call.metadata.get("authorization")).encode()
        if not any(hmac.compare_digest(given, token) for token in accepted):
            raise AccessDenied

    return internal


def _anybody(_: Call) -> None:
    pass


def _denied(_: Call) -> None:
    raise AccessDenied


def validation(method: Method, check: Check | None = None) -> Validation:
    """Returns the validation of a request: protovalidate's rules, the method's own check, and that body and query do not contradict the path.

    `check` is the method's own check of its requests. The error names the fields of all violations.
    """
    collect = protovalidate.Validator().collect_violations
    path = method.path

    def validate(request: Any, call: Call) -> None:
        if request is None:
            raise MalformedRequest
        # A large message can violate a rule once every few bytes, so only its first violation is reported.
        found = [_violation(each) for each in collect(request, fail_fast=call.request_bytes > THOROUGH_BYTES)]
        # The method's own check reads the whole message, so a large one must be within its bounds first.
        is_checked = check is not None and not (found and call.request_bytes > THOROUGH_BYTES)
        if call.not_ascii:
            found += [Violation(key[:MAX_KEY_CHARACTERS], "must have only ASCII characters") for key in call.not_ascii]
        if check is not None and is_checked:
            # A field that is out of its bounds has its violation already.
            named = {each.field for each in found}
            found += [each for each in check(request, call) if each.field not in named]
        if path is not None and (original := call.metadata.get(ORIGINAL_PATH)):
            found += path.violations(original, request)
        if found:
            raise InvalidField(*found[:MAX_VIOLATIONS])

    return validate


def _violation(violation: protovalidate.Violation) -> Violation:
    proto = violation.proto
    path = ""
    for element in proto.field.elements if proto.field else ():
        path += ("." if path else "") + element.field_name
        if element.subscript is not None:
            path += f"[{element.subscript.value}]"
    return Violation(path, proto.message or proto.rule_id)
