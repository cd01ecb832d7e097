"""docs/limits.md has every limit on what is done at once or how often, with its value, its setting, its reason and its wait."""

import re
from pathlib import Path

import pytest
from google.protobuf.descriptor import EnumDescriptor
from taskmanager.rpc.v1 import error_reason_pb2

from auth_service.passwords.errors import AttemptsUnderWay, TooManyHashes
from auth_service.settings import Settings as AuthSettings
from gateway import uploads
from gateway.replies import LOCAL_REPLIES
from gateway.settings import GatewaySettings
from servicekit.errors import Overloaded, SlowReader
from servicekit.rpc.answers import AT_ONCE, HARMLESS_BYTES, SLOWEST, UNSENT_BYTES
from servicekit.rpc.answers import BYTES_PER_SECOND as ANSWER_BYTES_PER_SECOND
from servicekit.rpc.budget import LARGE_BYTES, PROCESS_BYTES, USER_BYTES
from task_service.feed.errors import TooManyWatches
from task_service.feed.pace import BYTES_PER_SECOND, CHANGE_SECONDS
from task_service.feed.watching import MAX_WATCHES_PER_USER
from task_service.projects.domain import MAX_PROJECTS
from task_service.settings import Settings as TaskSettings
from task_service.tasks.domain import MAX_ANSWER_BYTES, MAX_PAGE_BYTES, MAX_PAGE_SIZE

ROOT = Path(__file__).resolve().parent.parent
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in (ROOT / "docs" / "limits.md").read_text().splitlines() if line[:1] == "|"]
DEFAULTS = {
    name.upper(): field.default for settings in (AuthSettings, TaskSettings, GatewaySettings) for name, field in settings.model_fields.items()
}
# The services' errors with a fixed wait.
FIXED = (Overloaded, AttemptsUnderWay, TooManyHashes, SlowReader, TooManyWatches)


def _reasons(cell: str) -> list[str]:
    return re.findall(r"`([A-Z_]+)`", cell)


def test_each_setting_in_the_table_has_the_value_in_the_table() -> None:
    given = {name: row[1] for row in ROWS for name in re.findall(r"`([A-Z_]+)`", row[2])}
    assert len(given) > 10
    assert {name: float(re.split(r"[ ,:]", value)[0]) for name, value in given.items()} == {name: float(DEFAULTS[name]) for name in given}


def test_every_reason_of_a_limit_is_in_the_table() -> None:
    """Each reason of a RESOURCE_EXHAUSTED error is a limit of its own."""
    catalogue = re.findall(r"^\| `([A-Z_]+)` \| RESOURCE_EXHAUSTED ", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
    assert len(catalogue) > 5
    described = {reason for row in ROWS for reason in _reasons(row[3])}
    enum: EnumDescriptor = error_reason_pb2.ErrorReason.DESCRIPTOR
    assert set(catalogue) <= described <= set(enum.values_by_name)


def test_each_wait_in_the_table_is_the_one_in_the_error() -> None:
    waits = {(reason, row[4]) for row in ROWS if len(row) == 5 for reason in _reasons(row[3]) if row[4].endswith(" s")}
    for error in FIXED:
        assert (error.reason, f"{error.retry_after_seconds:g} s") in waits
    for limited in [reply for reply in LOCAL_REPLIES if (reply.becomes or reply.status) == 429]:
        assert (error_reason_pb2.ErrorReason.Name(limited.reason or 0), f"{limited.retry_seconds} s") in waits


def test_the_limits_without_a_setting_have_their_value() -> None:
    values = {row[0]: row[1] for row in ROWS}
    assert values["open streams of a user on one replica"] == str(MAX_WATCHES_PER_USER)
    assert values["changes that the streams of a user send on one replica"] == f"{1 / CHANGE_SECONDS:.0f} a second"
    assert values["text that the streams of a user send on one replica"] == f"{BYTES_PER_SECOND // 2**20} MiB a second"
    assert values["lists and batches of a user on one replica at once; one with an answer above 64 KiB counts until the client has read it"] == str(
        AT_ONCE
    )
    sizes = {
        name: float(value.removesuffix(" a second").removesuffix(" MiB")) * 2**20
        for name, value in values.items()
        if "above 64 KiB" in name and "MiB" in value
    }
    assert list(sizes.values()) == [USER_BYTES, PROCESS_BYTES, ANSWER_BYTES_PER_SECOND, UNSENT_BYTES]
    assert LARGE_BYTES == 64 * 1024
    (of_json,) = (name for name in values if "over REST" in name and "JSON" in name)
    assert f"above {HARMLESS_BYTES // 1024} KiB of JSON" in of_json
    assert values[of_json] == f"{ANSWER_BYTES_PER_SECOND / SLOWEST / 2**20} MiB a second"
    most = uploads.BUCKET["max_tokens"]
    a_second = uploads.BUCKET["tokens_per_fill"] / float(uploads.BUCKET["fill_interval"].removesuffix("s"))
    counted = {size: size * max(1, min(size // uploads.PIECE, uploads.MOST)) for size in (uploads.PIECE, 2**18, 2**20, 2**21, 3 * 2**20)}
    (at_once,) = (value for name, value in values.items() if name.startswith("REST bodies of 16 KiB and more"))
    assert at_once == f"{most // counted[3 * 2**20]} of 3 MiB, {most // counted[2**18]} of 256 KiB"
    rates = [size * a_second / counted[size] / 2**20 for size in (uploads.PIECE, 2**18, 2**20, 2**21)]
    assert [float(rate) for rate in re.findall(r"([\d.]+) MiB(?: a second|,|$)", values["then"].replace("of 1 MiB", ""))] == pytest.approx(
        rates, rel=1e-3
    )
    assert values["bytes of a REST request without `content-length`"] == f"{uploads.UNDECLARED_BYTES // 1024} KiB"
    assert values["bytes of a REST request to a method without a body"] == f"{uploads.BODILESS_BYTES // 1024} KiB"
    assert values["bytes of a REST request to a method that needs no token"] == f"{uploads.PUBLIC_BYTES // 1024} KiB"
    assert values["projects of a user outside the bin"] == str(MAX_PROJECTS)
    assert values["tasks of a page"] == str(MAX_PAGE_SIZE)
    assert values["text of a page"] == f"{MAX_PAGE_BYTES // 2**20} MiB"
    assert values["text of the tasks in the answer of a batch"] == f"{MAX_ANSWER_BYTES // 2**20} MiB"


def test_each_limit_of_the_services_says_what_it_limits() -> None:
    assert len({error.message for error in FIXED}) == len(FIXED)
