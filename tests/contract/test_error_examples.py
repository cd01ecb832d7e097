"""The examples in docs/errors.md are what a run answers. With WRITE_ERROR_EXAMPLES=1 the run writes them; then `make proto` writes the document."""

import json
import os
from pathlib import Path

import httpx
import pytest
from taskmanager.rpc.v1 import error_reason_pb2

from tests.contract.error_examples import EXAMPLES, NOT_PROVOKED, Scene, shown
from tests.contract.table import make_world

RECORDED = Path(__file__).resolve().parents[2] / "proto" / "error_examples.json"
DETAILS = "details"


def test_every_reason_has_an_example_or_why_not() -> None:
    reasons = set(error_reason_pb2.ErrorReason.keys()) - {"ERROR_REASON_UNSPECIFIED"}
    assert set(EXAMPLES) | set(NOT_PROVOKED) == reasons
    assert not set(EXAMPLES) & set(NOT_PROVOKED)


@pytest.mark.parametrize("reason", EXAMPLES)
async def test_the_example_is_what_a_run_answers(reason: str, rest: httpx.AsyncClient) -> None:
    response = await EXAMPLES[reason](Scene(rest, *await make_world(rest)))
    assert reason in {detail.get("reason") for detail in response.json()[DETAILS]}
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    if os.environ.get("WRITE_ERROR_EXAMPLES"):
        recorded[reason] = shown(response)
        RECORDED.write_text(json.dumps(recorded, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    assert recorded.get(reason) == shown(response), "run this test with WRITE_ERROR_EXAMPLES=1, then `make proto`"


def test_no_example_is_left_over() -> None:
    assert set(json.loads(RECORDED.read_text(encoding="utf-8"))) == set(EXAMPLES)
