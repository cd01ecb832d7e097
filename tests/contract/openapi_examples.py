"""The examples in the OpenAPI document: requests and answers of the running system, recorded from the rows of the table.

`OPENAPI_EXAMPLES=write .venv/bin/pytest tests/contract/test_openapi.py` writes them anew.
"""

import json
import os
import re
from collections.abc import Mapping
from typing import Any, Final

from gateway.openapi.document import EXAMPLES

# Whether this run writes the examples instead of comparing them.
WRITING: Final = os.environ.get("OPENAPI_EXAMPLES") == "write"
# Tokens are cut, because their texts say nothing and scanners for secrets would report them.
_TOKEN_CHARACTERS: Final = 12
# Of the secret of a webhook only its prefix is left.
_TOKENS: Final = {
    **dict.fromkeys(("access_token", "refresh_token", "resume_token", "next_page_token", "token", "api_token"), _TOKEN_CHARACTERS),
    "secret": len("whsec_"),
}
# The random name in the email of an account that a test makes.
_NAME: Final = re.compile(r"[0-9a-f]{32}@")
# The parts of an example that differ in every run.
_CHANGING: Final = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<id>"),
    (re.compile(r"\b202\d-\d\d-\d\dT[0-9:.]+Z"), "<time>"),
    (re.compile(r"[\w-]{12}…"), "<token>"),
    (re.compile(r'"hint": "tm_\w{4}"'), '"hint": <hint>'),
    (re.compile(r"python-httpx/[0-9.]+"), "<client>"),
    (re.compile(r"\bmsg_[0-9a-f]{32}\b"), "<message>"),
    (re.compile(r'"duration": "[0-9.]+s"'), '"duration": <duration>'),
    (re.compile(r'"expires_in": \d+'), '"expires_in": <seconds>'),
)


def example(body: Any, answer: Any, *, streams: bool) -> dict[str, Any]:
    """Returns the example of a call: its body, if it has one, and its answer, or the first event of a stream."""
    shown = _cut(answer)
    return ({} if body is None else {"body": _cut(body)}) | {"answer": {"data": json.dumps(shown, ensure_ascii=False)} if streams else shown}


def recorded() -> dict[str, Any]:
    """Returns the stored examples, by method."""
    found: dict[str, Any] = json.loads(EXAMPLES.read_text(encoding="utf-8"))
    return found


def write(examples: Mapping[str, Any]) -> None:
    """Replaces the stored examples."""
    EXAMPLES.write_text(json.dumps(examples, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def unchanging(value: Any) -> Any:
    """Returns an example without the parts that differ in every run."""
    text = json.dumps(value, ensure_ascii=False)
    for pattern, name in _CHANGING:
        text = pattern.sub(name, text)
    return text


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return _NAME.sub("ada@", value)
    if isinstance(value, list):
        return [_cut(part) for part in value]
    if not isinstance(value, dict):
        return value
    return {name: f"{part[: _TOKENS[name]]}…" if name in _TOKENS and part and isinstance(part, str) else _cut(part) for name, part in value.items()}
