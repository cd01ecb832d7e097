"""A time has one form, RFC 3339, wherever a client writes it: in a REST body, in a query parameter and in a filter."""

import json
import random
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.contract.table import World
from tests.support.accounts import Account
from tests.support.errors import of_response

TASKS = "/api/v1/tasks"
NOON = "2026-12-31T12:00:00Z"

TIMES = [
    NOON,
    "2026-12-31T12:00:00.5Z",
    "2026-12-31T12:00:00.123456789Z",
    "2026-12-31T12:00:00+00:59",
    "2026-12-31T12:00:00-23:59",
    "2026-12-31T23:59:59-00:00",
    "2024-02-29T00:00:00Z",
    "0026-12-31T12:00:00Z",
]
OTHERS = [
    "2026-12-31T12:30:60Z",
    "2026-06-30T23:59:60Z",
    "26-12-31T12:00:00Z",
    "926-12-31T12:00:00Z",
    "12026-12-31T12:00:00Z",
    "2026-1-1T1:1:1Z",
    "2026-12-31t12:00:00Z",
    "2026-12-31T12:00:00z",
    "2026-12-31 12:00:00Z",
    " 2026-12-31T12:00:00Z",
    "2026-12-31T12:00:00Z ",
    "2026-12-31T12:00:00 +01:00",
    "2026-12-31T12:00:00",
    "2026-12-31T12:00Z",
    "2026-12-31T12:00:00.Z",
    "2026-12-31T12:00:00,5Z",
    "2026-12-31T12:00:00.1234567891Z",
    "2026-12-31T12:00:00+00:60",
    "2026-12-31T12:00:00+24:00",
    "2026-12-31T12:00:00+0100",
    "2026-12-31T12:00:00+01",
    "2026-12-31T12:00:00+1:00",
    "2026-12-31T12:00:00+01:00:00",
    "2026-12-31T24:00:00Z",
    "2026-12-31T12:60:00Z",
    "2026-13-01T00:00:00Z",
    "2026-02-29T00:00:00Z",
    "0000-12-31T12:00:00Z",
    "2026-W01-1T00:00:00Z",
    "20261231T120000Z",
    "\uff12\uff10\uff12\uff16-12-31T12:00:00Z",
    "1767184200",
    "tomorrow",
    "",
]
MALFORMED = (400, "MALFORMED_REQUEST")


async def _filtered(rest: httpx.AsyncClient, account: Account, text: str) -> httpx.Response:
    return await rest.get(TASKS, params={"filter": f'due_date = "{text}"'}, headers=account.headers)


def _refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, of_response(answer).reason


@pytest.mark.parametrize("text", TIMES)
async def test_a_time(rest: httpx.AsyncClient, account: Account, text: str) -> None:
    made = await rest.post(TASKS, json={"title": "a", "due_date": text}, headers=account.headers)
    assert made.status_code == 201, made.text
    found = await _filtered(rest, account, text)
    assert [task["id"] for task in found.json()["tasks"]] == [made.json()["id"]]
    # 3.11's parser reads more than 6 digits as 6, as the server does.
    assert datetime.fromisoformat(made.json()["due_date"]) == datetime.fromisoformat(text)


@pytest.mark.parametrize("text", OTHERS)
async def test_no_time(rest: httpx.AsyncClient, account: Account, text: str) -> None:
    made = await rest.post(TASKS, json={"title": "a", "due_date": text}, headers=account.headers)
    assert _refusal(made) == MALFORMED
    assert "due_date" in of_response(made).message
    assert _refusal(await _filtered(rest, account, text)) == (400, "INVALID_FIELD")


@pytest.mark.parametrize("value", [5, 1.5, True, {}, {"seconds": 5}, [], [NOON]], ids=str)
async def test_a_value_that_is_no_text(rest: httpx.AsyncClient, account: Account, value: Any) -> None:
    assert _refusal(await rest.post(TASKS, json={"title": "a", "due_date": value}, headers=account.headers)) == MALFORMED


WRONG = "26-12-31T12:00:00Z"


async def test_every_request_that_has_a_time(rest: httpx.AsyncClient, acted: tuple[World, Account]) -> None:
    world, account = acted
    path, headers = f"{TASKS}/{world.task_id}", account.headers
    for due_date, statuses in ((NOON, (200, 200, 200, 200)), (None, (200, 200, 200, 200)), (WRONG, (400, 400, 400, 400))):
        task = {"title": "a", "due_date": due_date}
        answers = [
            await rest.patch(path, json=task, headers=headers),
            await rest.put(path, json=task, headers=headers),
            await rest.post(f"{TASKS}:batchCreate", json={"requests": [{"task": {"title": "b"}}, {"task": task}]}, headers=headers),
            await rest.post(
                f"{TASKS}:batchUpdate", json={"requests": [{"task": {"id": world.task_id, **task}, "update_mask": "due_date"}]}, headers=headers
            ),
        ]
        assert tuple(answer.status_code for answer in answers) == statuses
    assert (await rest.get(path, headers=headers)).json().get("due_date") is None


@pytest.mark.parametrize("name", ["due_date", "dueDate", "task.due_date", "task.dueDate", "task.due_d%61te"])
async def test_a_time_in_the_query(rest: httpx.AsyncClient, acted: tuple[World, Account], name: str) -> None:
    world, account = acted
    answer = await rest.patch(f"{TASKS}/{world.task_id}?update_mask=due_date&{name}=26-12-31T12%3A00:00Z", json={}, headers=account.headers)
    assert _refusal(answer) == MALFORMED


@pytest.mark.parametrize(
    "body",
    [
        b'{"title": "a", "dueDate": "%s"}',
        b'{"title": "a", "due_date" \n:\t "%s"}',
        b'{"title": "a", "due\\u005fdate": "%s"}',
        b'{"title": "a\\\\", "due_date": "%s"}',
        b'{"title": "a", "description": "\\"due_date\\": \\"x\\"", "due_date": "%s"}',
        b"{'title': 'a', 'due_date': '%s'}",
        b'{title: "a", due_date: "%s"}',
    ],
)
async def test_however_the_name_is_written(rest: httpx.AsyncClient, account: Account, body: bytes) -> None:
    for text, status in ((NOON, 201), (WRONG, 400)):
        answer = await rest.post(TASKS, content=body % text.encode(), headers=account.headers)
        assert answer.status_code == status, answer.text


TEXTS = [
    '"due_date": 1',
    "due_date: 1",
    "'due_date': 1",
    '\\"due_date\\": 1',
    'due_date" : 1',
    "due_date",
    'a\\"',
    "ü \\u0064ue_date: 1",
    '{"due_date": 5}',
]


@pytest.mark.parametrize("field", ["title", "description", "labels"])
@pytest.mark.parametrize("text", TEXTS)
async def test_a_text_about_times_is_a_text(rest: httpx.AsyncClient, account: Account, field: str, text: str) -> None:
    task = {"title": "a", field: [text, f"{text} "] if field == "labels" else text}
    for body in (task, {**task, "due_date": NOON}, {"due_date": None, **task}):
        for ascii_only in (True, False):
            answer = await rest.post(TASKS, content=json.dumps(body, ensure_ascii=ascii_only), headers=account.headers)
            assert answer.status_code == 201, answer.text
            assert answer.json()[field] == task[field]


def _mutated(rng: random.Random) -> str:
    """Returns a time with a few characters replaced, left out or repeated."""
    moment = datetime(2026, 12, 31, 12, tzinfo=UTC) + timedelta(seconds=rng.randrange(10**9))
    text = moment.replace(tzinfo=None).isoformat() + rng.choice(["Z", "+00:00", "-11:30", ".5Z", ".123456789+23:59"])
    for _ in range(rng.choice([0, 1, 1, 2])):
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(["", *"0123456789TZ+-:. tz"]) + text[at + rng.choice([0, 1, 1]) :]
    return text


@pytest.mark.parametrize("seed", range(2))
async def test_bodies_and_filters_take_the_same_times(rest: httpx.AsyncClient, account: Account, seed: int) -> None:
    rng, taken = random.Random(seed), 0
    for _ in range(100):
        text = _mutated(rng)
        # A filter also takes a date alone, and a year in which no task can be due.
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text) or text.startswith(("0000", "0001", "9999")):
            continue
        made = await rest.post(TASKS, json={"title": "a", "due_date": text}, headers=account.headers)
        filtered = await _filtered(rest, account, text)
        assert (made.status_code, filtered.status_code) in {(201, 200), (400, 400)}, text
        taken += made.status_code == 201
    assert 20 < taken < 80
