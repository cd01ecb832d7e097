"""Programs that not every machine has. CI installs them (.ci/run), and there a test fails without."""

import os
import shutil

import pytest


def required(name: str, how: str) -> str:
    """The program's path. Without it the test is skipped, and fails in CI; `how` says how to install it."""
    path = shutil.which(name)
    if path is None:
        assert os.environ.get("CI") != "true", f"{name} is not installed: {how}"
        pytest.skip(f"{name} is not installed: {how}")
    return path
