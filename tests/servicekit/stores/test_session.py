"""What a connection to PostgreSQL sends when it starts, and whether its statements have names."""

import pytest

from servicekit.stores.session import Pooler, named_statements, startup_settings


def test_a_session_of_its_own_gets_all_settings() -> None:
    limits = {"statement_timeout": "7500", "idle_in_transaction_session_timeout": "7500"}
    assert startup_settings(Pooler.NONE, "test", 7.5) == {"application_name": "test", **limits}
    plans = {"plan_cache_mode": "force_generic_plan"}
    assert startup_settings(Pooler.NONE, "test", 7.5, generic_plans=True) == {"application_name": "test", **limits, **plans}


@pytest.mark.parametrize("pooler", [Pooler.PGBOUNCER, Pooler.PGBOUNCER_PREPARED])
def test_pgbouncer_gets_only_what_it_carries_from_session_to_session(pooler: Pooler) -> None:
    assert startup_settings(pooler, "test", 7.5, generic_plans=True) == {"application_name": "test", "client_encoding": "UTF8"}


def test_only_old_versions_of_pgbouncer_get_statements_without_names() -> None:
    assert {pooler: named_statements(pooler, 100) for pooler in Pooler} == {Pooler.NONE: 100, Pooler.PGBOUNCER: 0, Pooler.PGBOUNCER_PREPARED: 100}
