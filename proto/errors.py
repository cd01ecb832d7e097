"""Writes docs/errors.md, the catalogue of errors, from error_reason.proto. Run by `make proto`."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from google.protobuf import descriptor_pb2

ROOT = Path(__file__).resolve().parent.parent
DESCRIPTORS, DOCUMENT = ROOT / "gen" / "descriptors.binpb", ROOT / "docs" / "errors.md"
CATALOGUE: Final = "taskmanager/rpc/v1/error_reason.proto"

# What a status is over REST (google/rpc/code.proto).
HTTP_STATUS: Final[Mapping[str, int]] = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
# `What it means. Status NOT_FOUND; and more. Example: one.`
COMMENT: Final = re.compile(r"(?P<when>.*?) Status (?P<status>[A-Z_]+)(?P<more>[.;].*?) Example: (?P<example>.*)")
# The field numbers of descriptor.proto by which source code info addresses things.
ENUMS, VALUES = 5, 2

HEAD: Final = """# Errors

Every error has a gRPC status and, unless the gateway refuses what is no request of the API at all, a reason: the `reason` of its
`google.rpc.ErrorInfo`, in the domain `taskmanager`. Go by the reason; messages are for people and may change. Written by `make proto` from
[`error_reason.proto`](../proto/taskmanager/rpc/v1/error_reason.proto).

| reason | gRPC status | HTTP | when | example |
| --- | --- | --- | --- | --- |
"""


def catalogue() -> str:
    """The document. Raises ValueError if the comment of a reason lacks its status or an example."""
    return HEAD + "".join(_row(name, " ".join(comment.split())) for name, comment in _reasons())


def _row(name: str, comment: str) -> str:
    match = COMMENT.fullmatch(comment)
    if match is None:
        raise ValueError(f"the comment of {name} must have `Status …` and `Example: …`")
    when = match["when"].removesuffix(".") + match["more"]
    cells = (f"`{name}`", match["status"], str(HTTP_STATUS[match["status"]]), when, match["example"])
    return f"| {' | '.join(cells)} |\n"


def _reasons() -> Iterator[tuple[str, str]]:
    """The reasons and their comments, without the first, which is never sent."""
    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file
    (file,) = (file for file in files if file.name == CATALOGUE)
    comments = {tuple(location.path): location.leading_comments for location in file.source_code_info.location}
    for index, value in enumerate(file.enum_type[0].value):
        if value.number:
            yield value.name, comments[ENUMS, 0, VALUES, index]


if __name__ == "__main__":
    DOCUMENT.write_text(catalogue(), encoding="utf-8")
