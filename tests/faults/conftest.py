"""The fault campaign takes long. It runs only if pytest selects the marker `faults`, as `make test-faults` does."""

import os
from pathlib import Path

import pytest

from tests.support import tiers

HERE = Path(__file__).parent
# How long a test may take besides FAULT_SECONDS: starts, recoveries, and the search for a shorter example after a failure.
BESIDES_SECONDS = 900


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "faults: the long fault campaign")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if HERE in collection_path.parents and "faults" not in config.option.markexpr else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tiers.may_take(items, HERE, BESIDES_SECONDS + 3 * float(os.environ.get("FAULT_SECONDS") or 60))
