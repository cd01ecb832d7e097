"""Sets the user of a process and makes it end with its supervisor, then executes the process's command.

It runs as a script (`python -I -S launch.py '{"…": …}' command …`), so it uses only the standard library and must not import devstack. It is a
separate program and not a `preexec_fn`, because Python code between fork and exec can deadlock in a process with threads.

On Linux, the parent death signal ends the process when the **thread** that started it ends. So the thread of the event loop that runs a stack must
outlive the stack; use the main thread. On other systems, a supervisor that is killed by SIGKILL leaves its processes running; the next start on the
same data directory reports their pids.
"""

import ctypes
import json
import os
import signal
import sys
from typing import Any, NoReturn

# linux/prctl.h, linux/capability.h, linux/securebits.h
_PR_SET_PDEATHSIG = 1
_PR_SET_SECUREBITS = 28
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_CAPABILITY_VERSION_3 = 0x20080522


def main() -> NoReturn:
    """Applies the orders in the first argument (JSON) and executes the remaining arguments as a command."""
    orders, command = json.loads(sys.argv[1]), sys.argv[2:]
    try:
        _reset_signals()
        if orders["uid"] is not None:
            _become(orders["uid"], orders["gid"], orders["capabilities"])
        # Only after the change of user, because that change clears the parent death signal.
        _end_with(orders["parent"], orders["death_signal"])
        os.execv(command[0], command)  # noqa: S606 - the purpose of this program
    except OSError as error:
        print(f"cannot start {command[0]}: {error}", file=sys.stderr, flush=True)
    os._exit(127)


def _reset_signals() -> None:
    # Python ignores some of these signals, and a shell starts background jobs with SIGINT ignored. An ignored signal stays ignored after exec.
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def _end_with(parent: int, death_signal: int) -> None:
    if sys.platform != "linux":
        return
    _prctl(_PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent:  # the supervisor died before the line above
        os._exit(0)


def _become(uid: int, gid: int, capabilities: list[int]) -> None:
    os.setgroups([gid])
    os.setresgid(gid, gid, gid)
    if capabilities:
        # Without this bit the kernel drops the capabilities on setuid. access(2), with which PostgreSQL looks for its own files, would also ignore
        # them.
        _prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP)
    os.setresuid(uid, uid, uid)
    if capabilities:
        _keep_only(capabilities)


def _keep_only(capabilities: list[int]) -> None:
    """Reduces every capability set to the given capabilities and makes them ambient, so that they survive exec."""
    low, high = (sum(1 << (number - base) for number in capabilities if base <= number < base + 32) for base in (0, 32))
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)(low, low, low, high, high, high)  # effective, permitted, inheritable
    _call("capset", header, sets)
    for number in capabilities:
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number)


def _prctl(option: int, first: int, second: int = 0) -> None:
    _call("prctl", option, *(ctypes.c_ulong(value) for value in (first, second, 0, 0)))


def _call(function: str, *arguments: Any) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


if __name__ == "__main__":
    main()
