"""Programs that tests need but not every machine has. CI installs them (.ci/run); there a test fails if its program is missing."""

import os
import shutil

import pytest


def required(name: str, how: str) -> str:
    """Returns the program's path. If it is missing, skips the test, or fails it in CI. `how` is the installation hint."""
    path = shutil.which(name)
    if path is None:
        assert os.environ.get("CI") != "true", f"{name} is not installed: {how}"
        pytest.skip(f"{name} is not installed: {how}")
    return path
