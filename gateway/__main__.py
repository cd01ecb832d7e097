"""`python -m gateway`: writes Envoy's configuration for the settings of the environment. Exit status 2 means that a setting is wrong."""

import argparse
import sys
from pathlib import Path

from gateway.config import GatewaySettings, render
from gateway.routes import DescriptorError
from gateway.settings import SettingsError


def main() -> int:
    """Renders to stdout or to a file, and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m gateway", description="Writes Envoy's configuration from the settings in the environment.")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write here instead of to the standard output")
    output: Path | None = parser.parse_args().output
    try:
        text = render(GatewaySettings.from_environment())
    except (SettingsError, DescriptorError) as error:
        sys.stderr.write(f"gateway: the settings are wrong:\n{error}\n")
        return 2
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
