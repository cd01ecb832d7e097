"""What can go wrong with the stack, each with a message that says what to do; nothing here prints."""

EXIT_CLEAN = 0
EXIT_FAILED = 1
EXIT_USAGE = 2


class StackError(Exception):
    """A reason for which the stack does not run. `exit_status` is what the command line ends with."""

    exit_status = EXIT_FAILED


class UsageProblem(StackError):
    """Something that the caller has to change before anything can start."""

    exit_status = EXIT_USAGE


class PortsTaken(UsageProblem):
    """One or more ports are in use, or asked for twice."""


class DataDirBusy(UsageProblem):
    """Another stack, or what is left of one, uses the data directory."""


class ProcessDied(StackError):
    """A process of the stack ended although nobody asked it to."""


class StartTimeout(StackError):
    """A process lives but did not become ready in its time."""
