"""The errors of a stack. The message of each error says what to do. This module prints nothing."""

EXIT_CLEAN = 0
EXIT_FAILED = 1
EXIT_USAGE = 2


class StackError(Exception):
    """The stack cannot run. `exit_status` is the exit status of the command line."""

    exit_status = EXIT_FAILED


class UsageProblem(StackError):
    """The caller must change something before the stack can start."""

    exit_status = EXIT_USAGE


class PortsTaken(UsageProblem):
    """One or more ports are in use, or two listeners want the same port."""


class DataDirBusy(UsageProblem):
    """Another stack, or a process that a crashed stack left, uses the data directory."""


class ProcessDied(StackError):
    """A process of the stack ended unexpectedly."""


class StartTimeout(StackError):
    """A process runs but did not become ready within its timeout."""
