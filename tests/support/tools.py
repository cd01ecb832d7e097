"""Programs that tests need but not every machine has. `.ci/run` installs them.

If a program is missing, its tests are skipped. With CI=true they fail, unless EXEMPT_TOOLS names the program. Spaces separate its names.
"""

import os
import shutil
from typing import Final, NoReturn

import pytest

EXEMPT: Final = "EXEMPT_TOOLS"


def required(name: str, how: str) -> str:
    """Returns the program's path. If it is missing, see `missing`. `how` is the installation hint."""
    return shutil.which(name) or missing(name, how)


def missing(name: str, how: str) -> NoReturn:
    """Skips the test, or fails it in CI. The end of the run counts the skipped tests by this name (tests.support.report)."""
    said = f"{name} is not installed: {how}"
    if name in os.environ.get(EXEMPT, "").split():
        pytest.skip(f"{said} ({EXEMPT} names it)")
    if os.environ.get("CI") == "true":
        pytest.fail(said, pytrace=False)
    pytest.skip(said)
