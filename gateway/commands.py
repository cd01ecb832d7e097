"""`python -m gateway` writes Envoy's configuration for the settings in the environment. `python -m gateway run` also runs Envoy with it.

Exit status 2 means that a setting is wrong, Envoy is not installed, or the configuration cannot be written.
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
from gateway.certificate import write_secret_file
from gateway.config import GatewaySettings, envoy_arguments, render
from gateway.routes import DescriptorError
from gateway.settings import SettingsError


def main() -> int:
    """Writes the configuration to standard output or a file, or runs the gateway. Returns the exit status."""
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
        write_secret_file(settings)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gateway", description="Writes Envoy's configuration from the settings in the environment.")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write to this file instead of standard output")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("run", help="run Envoy until SIGTERM; the configuration is written to the temporary directory (TMPDIR)")
    return parser.parse_args()


def _run(settings: GatewaySettings, text: str) -> int:
    envoy = shutil.which("envoy")
    if envoy is None:
        return _refuse("the program envoy is not on the PATH")
    try:
        write_secret_file(settings)
        config = Path(tempfile.gettempdir(), "envoy.yaml")
        config.unlink(missing_ok=True)
        with config.open("x", encoding="utf-8") as file:  # mode x never follows a symbolic link that another user created
            file.write(text)
    except OSError as error:
        return _refuse(f"cannot write the configuration or read the certificate: {error}; provide a writable directory at /tmp, or set TMPDIR to one")
    return _become_supervisor(settings, [envoy, *envoy_arguments(settings, config), "--disable-hot-restart"])


def _become_supervisor(settings: GatewaySettings, command: list[str]) -> NoReturn:
    orders = {
        "command": command,
        "admin_port": settings.admin_port,
        "drain_delay_seconds": settings.drain_delay_seconds,
        "shutdown_grace_seconds": settings.shutdown_grace_seconds,
    }
    # exec replaces this process, whose libraries are no longer needed, and so frees their memory.
    os.execv(sys.executable, [sys.executable, "-I", "-S", supervise.__file__, json.dumps(orders)])  # noqa: S606 - no untrusted input


def _refuse(message: str) -> int:
    sys.stderr.write(f"gateway: {message}\n")
    return 2
