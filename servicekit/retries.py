"""What makes a write safe to send again: the name that its client gave it, and the etags that it depends on. Values only."""

from dataclasses import dataclass

# The etags of which a resource must have one now; None where any will do.
Etags = tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A write's name, chosen by its client, and the hash of all that the client asked for under it."""

    key: str
    request_hash: bytes
