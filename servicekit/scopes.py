"""The scopes of API tokens. A method names the scope that it needs beside its access (`taskmanager.rpc.v1.scope`); see docs/security.md."""

from collections.abc import Iterable, Mapping
from typing import Final

# By the scopes that a token can have: the scopes with which methods let it in.
SCOPES: Final[Mapping[str, frozenset[str]]] = {
    "tasks:read": frozenset({"tasks:read"}),
    "tasks:write": frozenset({"tasks:write", "tasks:read"}),
    "webhooks:manage": frozenset({"webhooks:manage"}),
    "account:read": frozenset({"account:read"}),
}


def granted(scopes: Iterable[str]) -> frozenset[str]:
    """Returns the scopes with which methods let in a token that has these scopes. A scope that this version does not know grants nothing."""
    return frozenset().union(*(SCOPES.get(scope, frozenset()) for scope in scopes))
