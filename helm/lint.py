"""`python -m helm.lint`: runs Helm's own lint in strict mode, with the defaults and with each scenario in `ci/`."""

import sys
from typing import Any, Final

from helm_python import lint

from helm.chart import ROOT, SCENARIOS, read_values

_WARNING: Final = 2


def findings(values: dict[str, Any]) -> list[str]:
    """Returns Helm's warnings and errors, one line each."""
    report = lint(ROOT, values, strict=True, with_subcharts=False)
    errors: list[str] = report["errors"]
    return [f"{message['path']}: {message['error']}" for message in report["messages"] if message["severity"] >= _WARNING] + errors


def main() -> int:
    """Returns the exit status: 1 if there is a finding."""
    scenarios = {"the defaults": {}, **{file.name: read_values(file) for file in SCENARIOS}}
    found = {name: lines for name, values in scenarios.items() if (lines := findings(values))}
    for name, lines in found.items():
        sys.stderr.write(f"{name}:\n  " + "\n  ".join(lines) + "\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
