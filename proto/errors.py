"""Writes docs/errors.md, the catalogue of errors, from error_reason.proto and the recorded examples. `make proto` runs it."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from google.protobuf import descriptor_pb2

from gateway.openapi.errors import HTTP_STATUS

ROOT = Path(__file__).resolve().parent.parent
DESCRIPTORS, DOCUMENT = ROOT / "gen" / "descriptors.binpb", ROOT / "docs" / "errors.md"
EXAMPLES: Final = ROOT / "proto" / "error_examples.json"
CATALOGUE: Final = "taskmanager/rpc/v1/error_reason.proto"

# The form of a comment: `Meaning. Status NOT_FOUND; details. Example: one.`
COMMENT: Final = re.compile(r"(?P<when>.*?) Status (?P<status>[A-Z_]+)(?P<more>[.;].*?) Example: (?P<example>.*)")
# The HTTP statuses of a reason that does not have the one of its gRPC status.
HTTP: Final = re.compile(r"the HTTP status is (\d+(?:(?:, | or )\d+)*)")
# Field numbers of descriptor.proto, from which the paths in source code info are built.
ENUMS, VALUES = 5, 2

HEAD: Final = """# Errors

Every error has a gRPC status. It also has a reason: the `reason` of its `google.rpc.ErrorInfo`, in the domain `taskmanager`. Only errors
that the gateway itself returns can lack a reason, for example the error for an unknown path. Clients must decide by the reason; messages are
for people and may change. `make proto` writes this file from [`error_reason.proto`](../proto/taskmanager/rpc/v1/error_reason.proto).

| reason | gRPC status | HTTP | when | example |
| --- | --- | --- | --- | --- |
"""
EXAMPLES_HEAD: Final = """
## Examples

Requests over REST and their answers, recorded by a run of `tests/contract/test_error_examples.py`, which fails if an answer differs.
`…` stands for what differs from run to run. `tests/contract/error_examples.py` says why the other reasons have no example.
"""


def catalogue() -> str:
    """Returns the document. Raises ValueError if the comment of a reason lacks its status or an example."""
    reasons = list(_reasons())
    table = "".join(_row(name, " ".join(comment.split())) for name, comment in reasons)
    recorded: Mapping[str, str] = json.loads(EXAMPLES.read_text(encoding="utf-8"))
    return HEAD + table + EXAMPLES_HEAD + "".join(_example(name, recorded[name]) for name, _ in reasons if name in recorded)


def _example(name: str, text: str) -> str:
    return f"\n### {name}\n\n```http\n{text}\n```\n"


def _row(name: str, comment: str) -> str:
    match = COMMENT.fullmatch(comment)
    if match is None:
        raise ValueError(f"the comment of {name} must have `Status …` and `Example: …`")
    when = match["when"].removesuffix(".") + match["more"]
    stated = HTTP.search(comment)
    cells = (f"`{name}`", match["status"], stated[1] if stated else str(HTTP_STATUS[match["status"]]), when, match["example"])
    return f"| {' | '.join(cells)} |\n"


def _reasons() -> Iterator[tuple[str, str]]:
    """Yields the reasons and their comments, without ERROR_REASON_UNSPECIFIED, which is never sent."""
    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file
    (file,) = (file for file in files if file.name == CATALOGUE)
    comments = {tuple(location.path): location.leading_comments for location in file.source_code_info.location}
    for index, value in enumerate(file.enum_type[0].value):
        if value.number:
            yield value.name, comments[ENUMS, 0, VALUES, index]


if __name__ == "__main__":
    DOCUMENT.write_text(catalogue(), encoding="utf-8")
