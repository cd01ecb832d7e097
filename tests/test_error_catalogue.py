"""docs/errors.md equals what `make proto` generates from error_reason.proto. The generator reports a comment that lacks a part."""

import runpy
from pathlib import Path

import pytest

from servicekit.rpc.status import CODES

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = runpy.run_path(str(ROOT / "proto" / "errors.py"))


def test_the_document_is_that_of_the_protos() -> None:
    assert (ROOT / "docs" / "errors.md").read_text(encoding="utf-8") == SCRIPT["catalogue"](), "run `make proto`"


def test_every_status_that_there_can_be_is_known() -> None:
    assert set(SCRIPT["HTTP_STATUS"]) == {code.name for code in CODES.values()}


@pytest.mark.parametrize("comment", ["It is wrong. Status NOT_FOUND.", "It is wrong. Example: this."])
def test_a_planted_comment_that_lacks_something_is_found(comment: str) -> None:
    with pytest.raises(ValueError, match="PLANTED"):
        SCRIPT["_row"]("PLANTED", comment)
