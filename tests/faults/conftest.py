"""The fault campaign takes long. It runs only if pytest selects the marker `faults`, as `make test-faults` does."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "faults: the long fault campaign")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if HERE in collection_path.parents and "faults" not in config.option.markexpr else None
