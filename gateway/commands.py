"""`python -m gateway`: writes Envoy's configuration for the settings of the environment; `python -m gateway run` runs Envoy on it as well.

Exit status 2 means that a setting is wrong, or that there is no place to write to.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from gateway import supervise
from gateway.config import GatewaySettings, envoy_arguments, render
from gateway.routes import DescriptorError
from gateway.settings import SettingsError


def main() -> int:
    """Renders to stdout or to a file, or becomes the running gateway, and returns the exit status."""
    options = _options()
    try:
        settings = GatewaySettings.from_environment()
        text = render(settings)
    except (SettingsError, DescriptorError) as error:
        return _refuse(f"the settings are wrong:\n{error}")
    if options.command == "run":
        return _run(settings, text)
    if options.output is None:
        sys.stdout.write(text)
    else:
        options.output.write_text(text, encoding="utf-8")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gateway", description="Writes Envoy's configuration from the settings in the environment.")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write here instead of to the standard output")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("run", help="run Envoy on it until SIGTERM; the configuration goes to the directory for temporary files (TMPDIR)")
    return parser.parse_args()


def _run(settings: GatewaySettings, text: str) -> int:
    envoy = shutil.which("envoy")
    if envoy is None:
        return _refuse("there is no envoy on the PATH")
    try:
        config = Path(tempfile.gettempdir(), "envoy.yaml")
        config.unlink(missing_ok=True)
        with config.open("x", encoding="utf-8") as file:  # never through a link that somebody else put there
            file.write(text)
    except OSError as error:
        return _refuse(f"no place for the configuration: {error}; give a writable directory at /tmp, or name one by TMPDIR")
    return _become_supervisor(settings, [envoy, *envoy_arguments(settings, config), "--disable-hot-restart"])


def _become_supervisor(settings: GatewaySettings, command: list[str]) -> NoReturn:
    orders = {
        "command": command,
        "admin_port": settings.admin_port,
        "drain_delay_seconds": settings.drain_delay_seconds,
        "shutdown_grace_seconds": settings.shutdown_grace_seconds,
    }
    # In place of this process, whose libraries nobody needs any more.
    os.execv(sys.executable, [sys.executable, "-I", "-S", supervise.__file__, json.dumps(orders)])  # noqa: S606 - words of our own


def _refuse(message: str) -> int:
    sys.stderr.write(f"gateway: {message}\n")
    return 2
