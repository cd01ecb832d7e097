"""Positions: texts between others, in PostgreSQL's functions, against the order of bytes in Python."""

import random

import pytest

from servicekit.stores.postgres import Database
from task_service.tasks.domain import position_of, seq_of

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


async def between(database: Database, low: str, high: str) -> str | None:
    row = await database.fetchrow("SELECT task.position_between($1, $2) AS found", low, high)
    assert row is not None
    found: str | None = row["found"]
    return found


async def test_the_position_of_a_later_number_is_greater(database: Database) -> None:
    seqs = [1, 9, 15, 16, 17, 255, 256, 4095, 4096, 10**6, 2**40, 2**62]
    rows = await database.fetch("SELECT task.position_of(seq) AS position FROM unnest($1::bigint[]) AS seq", seqs)
    assert [row["position"] for row in rows] == [position_of(seq) for seq in seqs]
    assert [seq_of(row["position"]) for row in rows] == seqs
    assert sorted(map(position_of, seqs)) == [position_of(seq) for seq in seqs]
    # A task from before there were positions comes before every other one.
    assert position_of(1) > "0" + "f" * 32


@pytest.mark.parametrize("seed", range(5))
async def test_there_is_a_position_between_any_two(database: Database, seed: int) -> None:
    chance = random.Random(seed)
    known = ["", "0" + "".join(chance.choices("0123456789abcdef", k=32)), *(position_of(chance.randrange(1, 10**6)) for _ in range(5)), "z"]
    known = sorted(set(known))
    for _ in range(150):
        n = chance.randrange(len(known) - 1)
        found = await between(database, known[n], known[n + 1])
        assert found is not None
        assert known[n] < found < known[n + 1]
        assert set(found) <= set(DIGITS)
        assert not found.endswith("0")
        known.insert(n + 1, found)


@pytest.mark.parametrize(("low", "high"), [("a1", "a1"), ("b10", "a1"), ("a", "a00"), ("", "0"), ("a1", "")])
async def test_where_there_is_no_room_there_is_no_position(database: Database, low: str, high: str) -> None:
    assert await between(database, low, high) is None


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100, 500])
async def test_positions_are_spread(database: Database, count: int) -> None:
    row = await database.fetchrow("SELECT task.positions_between('a1', 'a2', $1) AS found", count)
    assert row is not None
    found = row["found"]
    assert len(found) == len(set(found)) == count
    assert ["a1", *found, "a2"] == sorted(["a1", *found, "a2"])
    # 62 digits: two of them behind the first two can tell 3 844 positions apart.
    assert max(map(len, found), default=0) <= 5
