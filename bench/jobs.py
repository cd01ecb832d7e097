"""What the benchmark and its load generator say to each other: one JSON line each way. Values only."""

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, Self

Protocol = Literal["grpc", "http"]


@dataclass(frozen=True, slots=True)
class Request:
    """One call to make. `body` is the message of gRPC, or the JSON of REST."""

    method: str
    path: str
    token: str
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Job:
    """A round: the requests are made in turn by `callers` at a time. `settle_seconds` come before what is measured.

    `processes` are the pids whose CPU is read at the begin and the end of it, each with its children.
    """

    protocol: Protocol
    port: int
    callers: int
    settle_seconds: float
    seconds: float
    processes: Mapping[str, int]
    requests: tuple[Request, ...]

    def to_json(self) -> str:
        """As one line."""
        return json.dumps(asdict(self), default=lambda data: base64.b64encode(data).decode())

    @classmethod
    def from_json(cls, line: str) -> Self:
        """What `to_json` wrote."""
        fields = json.loads(line)
        requests = tuple(Request(r["method"], r["path"], r["token"], base64.b64decode(r["body"])) for r in fields.pop("requests"))
        return cls(**fields, requests=requests)


@dataclass(frozen=True, slots=True)
class Round:
    """What came of a job. Latencies in µs, one for each call that was answered well; CPU in seconds, `client` among it."""

    seconds: float
    latencies: list[int]
    failures: int
    first_failure: str
    cpu_seconds: Mapping[str, float]
