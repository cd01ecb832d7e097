"""Failures of connection attempts that nobody waits for any more, which asyncio would log as errors with a traceback.

If a call's deadline ends while the event loop still resolves a name or connects, the attempt fails later, and asyncio reports an exception that was
never retrieved. The call has already reported the failure.
"""

import asyncio
from typing import Any

import structlog

log = structlog.get_logger()


def install() -> None:
    """Makes the running event loop log these failures at level debug. All other failures are logged as before."""
    asyncio.get_running_loop().set_exception_handler(_handle)


def _handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if isinstance(error, OSError) and str(context.get("message", "")).endswith("exception was never retrieved"):
        log.debug("abandoned_attempt_failed", error=type(error).__name__)
    else:
        loop.default_exception_handler(context)
