"""What is wrong with the requests about accounts beyond the bounds in the protos. Each method is named `check_` and its RPC, in snake_case.

The pipeline calls it before the handler and adds its violations to those of the bounds, so an error names every invalid field.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final

from taskmanager.auth.v1 import auth_service_pb2, user_pb2

from auth_service.passwords.rules import PasswordRules
from auth_service.users.domain import WRITABLE_FIELDS
from servicekit.errors import InvalidField, Violation, collected
from servicekit.rpc.call import Call
from servicekit.rpc.field_mask import fields_to_set

MISSING_NAME: Final = "must have 1 to 100 characters"


class UserChecks:
    """The checks."""

    def __init__(self, rules: PasswordRules) -> None:
        self._rules = rules

    def check_register(self, request: auth_service_pb2.RegisterRequest, _: Call) -> Sequence[Violation]:
        """Register."""
        return collected(partial(self._rules.check, "password", request.password, email=request.email, name=request.name))

    def check_change_password(self, request: auth_service_pb2.ChangePasswordRequest, _: Call) -> Sequence[Violation]:
        """ChangePassword. The service also compares the password with the account's email and name."""
        return collected(partial(self._rules.check, "new_password", request.new_password, email="", name=""))

    def check_update_me(self, request: user_pb2.UpdateMeRequest, _: Call) -> Sequence[Violation]:
        """UpdateMe."""
        wrong: Sequence[Violation] = []
        try:
            named: Sequence[str] = fields_to_set(request.update_mask, request.user, WRITABLE_FIELDS)
        except InvalidField as error:
            # The mask may name the name as well.
            wrong, named = error.violations, request.update_mask.paths
        missing = "name" in named and not request.user.HasField("name")
        return [*wrong, *([Violation("user.name", MISSING_NAME)] if missing else [])]
