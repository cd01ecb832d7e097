"""What is wrong with the requests about API tokens beyond the bounds in the protos. Each method is named `check_` and its RPC, in snake_case.

The pipeline calls it before the handler and adds its violations to those of the bounds, so an error names every invalid field.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

from taskmanager.auth.v1 import api_token_service_pb2

from auth_service.api_tokens.domain import MAX_LIFETIME
from servicekit.errors import Violation
from servicekit.rpc.call import Call

WRONG_EXPIRY: Final = f"must be in the future, and at most {MAX_LIFETIME.days} days from now"


class ApiTokenChecks:
    """The checks."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now

    def check_create_api_token(self, request: api_token_service_pb2.CreateApiTokenRequest, _: Call) -> Sequence[Violation]:
        """CreateApiToken."""
        if not request.api_token.HasField("expires_at"):
            return ()
        seconds = request.api_token.expires_at.seconds - self._now()
        return () if 0 < seconds <= MAX_LIFETIME.total_seconds() else (Violation("api_token.expires_at", WRONG_EXPIRY),)
