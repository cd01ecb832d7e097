"""The cache protocol gives no outdated answer in any order of its steps, each of its guards is necessary, and the rule before it was wrong."""

import pytest

from tests.model.cache_protocol import GUARDS, Protocol
from tests.model.exploring import explore
from tests.model.failover import FAILOVER_GUARDS, Failover
from tests.model.settling import Settling

SLOW = pytest.mark.slow("explores many worlds")


@pytest.mark.parametrize(("readers", "writers", "faults", "generations"), [(1, 1, 1, 4), (2, 2, 0, 3), pytest.param(2, 1, 1, 4, marks=SLOW)])
def test_no_order_of_the_steps_gives_an_outdated_answer(readers: int, writers: int, faults: int, generations: int) -> None:
    explored = explore(Protocol(readers=readers, writers=writers, faults=faults, generations=generations))
    assert explored.history is None
    assert explored.worlds > 10_000


@pytest.mark.parametrize("guard", sorted(GUARDS))
def test_without_one_guard_an_outdated_answer_is_found(guard: str) -> None:
    sizes = [(1, 1, 0), (2, 1, 0), (1, 2, 0), (1, 1, 1), (2, 1, 1), (1, 2, 1)]
    guards = GUARDS - {guard}
    assert any(explore(Protocol(readers=r, writers=w, faults=f, generations=3, guards=guards)).history is not None for r, w, f in sizes)


@pytest.mark.parametrize(
    ("readers", "writers", "faults", "generations"),
    [(1, 1, 0, 4), (2, 1, 0, 3), pytest.param(1, 2, 0, 3, marks=SLOW), pytest.param(1, 1, 1, 3, marks=SLOW)],
)
def test_nor_if_postgresql_loses_commits_in_a_failover(readers: int, writers: int, faults: int, generations: int) -> None:
    explored = explore(Failover(readers=readers, writers=writers, faults=faults, generations=generations))
    assert explored.history is None
    assert explored.worlds > 10_000


@pytest.mark.parametrize("guard", sorted(FAILOVER_GUARDS))
def test_without_one_guard_of_a_failover_an_outdated_answer_is_found(guard: str) -> None:
    guards = (GUARDS | FAILOVER_GUARDS) - {guard}
    assert explore(Failover(readers=1, writers=0, faults=0, generations=3, guards=guards)).history is not None


def test_the_rule_that_waits_for_other_replicas_to_notice_gives_outdated_answers() -> None:
    explored = explore(Settling())
    assert explored.history is not None
