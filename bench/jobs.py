"""The messages between the benchmark and its load generator: one JSON line in each direction. Values only."""

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, Self

Protocol = Literal["grpc", "http"]


@dataclass(frozen=True, slots=True)
class Request:
    """One call to make. `user` is the id of the user whose token it carries. `body` is the gRPC message, or the JSON of REST."""

    method: str
    path: str
    user: str
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Job:
    """A round to run: `callers` concurrent callers make the requests in turn. The measurement of `seconds` starts after `settle_seconds`.

    Without a `rate` the load is a closed loop. With a `rate`, in calls per second, it is an open loop, and `callers` limits the concurrent calls.
    `tokens` maps the ids of users to their access tokens. `processes` maps names to pids. The CPU time of each process and its children is read at
    the start and at the end of the measurement.
    """

    protocol: Protocol
    port: int
    callers: int
    settle_seconds: float
    seconds: float
    processes: Mapping[str, int]
    tokens: Mapping[str, str]
    requests: tuple[Request, ...]
    rate: float | None = None

    def to_json(self) -> str:
        """Returns the job as one line of JSON."""
        return json.dumps(asdict(self), default=lambda data: base64.b64encode(data).decode())

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Parses the output of `to_json`."""
        fields = json.loads(line)
        requests = tuple(Request(r["method"], r["path"], r["user"], base64.b64decode(r["body"])) for r in fields.pop("requests"))
        return cls(**fields, requests=requests)


@dataclass(frozen=True, slots=True)
class Round:
    """The result of a job. Latencies are in µs, one for each successful call. CPU times are in seconds and include `client`.

    In an open loop, latencies count from the intended start of the call. They contain those of the `unanswered` calls, as far as these have waited.
    """

    seconds: float
    cpu_seconds: Mapping[str, float]
    latencies: list[int]
    failures: int
    first_failure: str
    unanswered: int = 0
