"""The limits on the bodies of REST requests (ADR 29).

The gateway converts a body in one piece, before a service sees who sends it. Its worker serves nobody else meanwhile. So the rate of one user is
so low that others rarely wait behind it.
"""

from typing import Any, Final

_KIBIBYTE: Final = 1024
_MEBIBYTE: Final = 1024 * _KIBIBYTE

# Of a method that needs no token.
PUBLIC_BYTES: Final = 64 * _KIBIBYTE
# Without a content-length: the gateway reads such a body before it knows what it counts.
UNDECLARED_BYTES: Final = 64 * _KIBIBYTE
# Of a method that has no body. It is ignored.
BODILESS_BYTES: Final = 4 * _KIBIBYTE
# From here on a body counts. conditions.UPLOAD is the same as an expression.
COUNTED_BYTES: Final = 16 * _KIBIBYTE
# What Envoy reads of a connection before the filters have taken it. A connection keeps that much for a second after its request was refused. While a
# body waits for the exchange of an API token, Envoy holds up to twice as much. It then reads on only if that is less than half of what the buffer
# filter takes.
CONNECTION_BYTES: Final = 64 * _KIBIBYTE

# Others wait for the longest piece, not for the sum. So a body counts its bytes as often as it has PIECE bytes, at most MOST times.
PIECE: Final = 128 * _KIBIBYTE
MOST: Final = 16
_LARGEST: Final = 3 * _MEBIBYTE * MOST
_LENGTH: Final = "int(request.headers['content-length'])"
_TIMES: Final = f"({_LENGTH} < {PIECE} ? 1 : ({_LENGTH} < {MOST * PIECE} ? {_LENGTH} / {PIECE} : {MOST}))"
# A body that only a higher MAX_REQUEST_BYTES allows counts as one of 3 MiB, because no bucket has more than four of those.
COST: Final = f"%CEL({_LENGTH} * {MOST} > {_LARGEST} ? {_LARGEST} : {_LENGTH} * {_TIMES})%"

# The four largest bodies at once, and then one in _SECONDS. A client that waits RETRY_SECONDS may have to wait again, at most twice.
_SECONDS: Final = 12
RETRY_SECONDS: Final = 4
_FILLS_PER_SECOND: Final = 10
BUCKET: Final[dict[str, Any]] = {
    "max_tokens": 4 * _LARGEST,
    "tokens_per_fill": _LARGEST // (_SECONDS * _FILLS_PER_SECOND),
    "fill_interval": f"{1 / _FILLS_PER_SECOND}s",
}
# Of a request without a user, which no limit here is about: the filter needs a bucket for it.
UNLIMITED: Final[dict[str, Any]] = {"max_tokens": 2**32 - 1, "tokens_per_fill": 2**32 - 1, "fill_interval": "1s"}
# The users that a gateway remembers: those who uploaded last.
MAX_USERS: Final = 10_000
