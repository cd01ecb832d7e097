"""The command line: parses the options, runs a stack in the foreground, and maps signals and failures to an exit status."""

import argparse
import asyncio
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from devstack.config import DEFAULT_DATA_DIR, Ports, StackConfig, Tls
from devstack.errors import EXIT_CLEAN, EXIT_FAILED, StackError, UsageProblem
from devstack.examples import addresses, examples
from devstack.follow import follow
from devstack.ports import PURPOSES, switch
from devstack.screen import Screen, screen
from devstack.stack import Stack

_DEFAULT_PORTS = Ports()
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit status: 0 if a signal stopped the stack, 1 if something failed, 2 if the caller must change something."""
    options = _parser().parse_args(arguments)
    if options.command == "logs":
        return _follow(options.log_dir or options.data_dir / "logs")
    return asyncio.run(foreground(_config(options)))


def _follow(folder: Path) -> int:
    console = Console(highlight=False)
    try:
        follow(folder, console)
    except KeyboardInterrupt:
        return EXIT_CLEAN
    except UsageProblem as error:
        console.stderr = True
        console.print(str(error))
        return error.exit_status
    return EXIT_CLEAN


async def foreground(config: StackConfig) -> int:
    """Runs a stack until a signal or a failure, and returns the exit status. Call it in the main thread."""
    shown = screen()
    stack = Stack(config, shown)
    asked = _ending_signals(stack)
    running = asyncio.ensure_future(_run(stack, shown))
    await asyncio.wait((running, asked), return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        shown.settle()
        shown.say(f"{asked.result().name}: stopping (send the signal again to kill the processes at once)")
        running.cancel()
    try:
        await running
    except asyncio.CancelledError:
        return EXIT_FAILED if stack.killed else EXIT_CLEAN
    except StackError as error:  # already reported
        return error.exit_status


async def _run(stack: Stack, shown: Screen) -> NoReturn:
    began = time.monotonic()
    async with stack:
        shown.say(f"all ready in {time.monotonic() - began:.2f} s; logs in {stack.log_dir}; Ctrl-C stops everything")
        with suppress(OSError):
            print(f"ready: {stack.state.url}", addresses(stack.state), examples(stack.state.url), sep="\n", flush=True)
        await stack.wait_for_death()


def _ending_signals(stack: Stack) -> "asyncio.Future[signal.Signals]":
    """Returns a future that the first signal resolves. Every later signal makes the stack kill its processes instead of waiting."""
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[signal.Signals] = loop.create_future()

    def on_signal(number: signal.Signals) -> None:
        if asked.done():
            stack.hurry()
        else:
            asked.set_result(number)

    for number in _ENDING_SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    return asked


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m devstack", description="The whole system on one machine, without a container engine.")
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")
    logs = commands.add_parser("logs", help="follow the logs of a running system")
    logs.add_argument("--data-dir", type=Path, default=DEFAULT_DATA_DIR, metavar="DIR", help="its data directory (default: %(default)s)")
    logs.add_argument("--log-dir", type=Path, metavar="DIR", help="the directory of its logs (default: DATA-DIR/logs)")
    up = commands.add_parser("up", help="start everything and stay in the foreground")
    where = up.add_mutually_exclusive_group()
    where.add_argument("--data-dir", type=Path, default=DEFAULT_DATA_DIR, metavar="DIR", help="persistent data directory (default: %(default)s)")
    where.add_argument("--ephemeral", action="store_true", help="use a temporary directory and remove it at the end")
    for name, purpose in PURPOSES.items():
        # argparse also parses a default that is a string, so an invalid GATEWAY_PORT gets the same error message as an invalid option.
        default = (name == "gateway" and os.environ.get("GATEWAY_PORT")) or getattr(_DEFAULT_PORTS, name)
        up.add_argument(switch(name), type=_port, default=default, metavar="N", help=f"{purpose} (default: %(default)s; 0: a free port)")
    up.add_argument("--auth-replicas", type=_count, default=1, metavar="N", help="number of auth_service processes; all but the first use free ports")
    up.add_argument("--task-replicas", type=_count, default=1, metavar="N", help="number of task_service processes; all but the first use free ports")
    up.add_argument("--task-workers", type=_count, default=1, metavar="N", help="number of worker processes; all but the first use free ports")
    up.add_argument("--tls-port", type=_port, metavar="N", help="TLS port of the gateway, besides the HTTP port; needs --tls-cert and --tls-key")
    up.add_argument("--tls-cert", type=Path, metavar="FILE")
    up.add_argument("--tls-key", type=Path, metavar="FILE")
    up.add_argument("--state-file", type=Path, metavar="FILE", help="JSON file with addresses and pids; it exists while the stack is ready")
    up.add_argument("--log-dir", type=Path, metavar="DIR", help="directory of the processes' logs (default: DATA-DIR/logs)")
    up.set_defaults(parser=up)
    return parser


def _port(text: str) -> int:
    return _number(text, 0, 65_535)


def _count(text: str) -> int:
    return _number(text, 1, 100)


def _number(text: str, least: int, most: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        message = f"{text!r} is not a number from {least} to {most}"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _config(options: argparse.Namespace) -> StackConfig:
    return StackConfig(
        data_dir=None if options.ephemeral else options.data_dir,
        ports=Ports(**{name: getattr(options, f"{name}_port") for name in PURPOSES}),
        tls=_tls(options),
        auth_replicas=options.auth_replicas,
        task_replicas=options.task_replicas,
        task_workers=options.task_workers,
        state_file=options.state_file,
        log_dir=options.log_dir,
    )


def _tls(options: argparse.Namespace) -> Tls | None:
    given = (options.tls_port, options.tls_cert, options.tls_key)
    if given == (None, None, None):
        return None
    if None in given:
        options.parser.error("--tls-port, --tls-cert and --tls-key must be given together")
    return Tls(options.tls_port, options.tls_cert.absolute(), options.tls_key.absolute())
