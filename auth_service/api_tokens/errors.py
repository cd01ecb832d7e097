"""The errors of API tokens."""

from servicekit.errors import Kind, ServiceError


class ApiTokenNotFound(ServiceError):
    """The caller has no such API token: it never existed, was deleted or has expired, or belongs to another user. The answer does not say which."""

    kind = Kind.NOT_FOUND
    reason = "API_TOKEN_NOT_FOUND"
    message = "There is no such API token."


class TooManyApiTokens(ServiceError):
    """The account has the maximum number of API tokens."""

    kind = Kind.FAILED_PRECONDITION
    reason = "LIMIT_REACHED"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The account has {limit} API tokens. Delete one first.", metadata={"limit": str(limit)})
