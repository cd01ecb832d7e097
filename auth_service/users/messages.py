"""Converts accounts from domain values to messages of taskmanager.auth.v1."""

from taskmanager.auth.v1 import user_pb2

from auth_service.users.domain import User
from servicekit.rpc.timestamps import to_timestamp


def to_user(user: User) -> user_pb2.User:
    """Returns the account as an API message."""
    return user_pb2.User(
        id=str(user.id), email=user.email, name=user.name, created_at=to_timestamp(user.created_at), updated_at=to_timestamp(user.updated_at)
    )
