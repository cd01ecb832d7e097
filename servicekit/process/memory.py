"""Tells glibc's allocator to give memory back: without these limits a process keeps most of what its largest burst of requests took."""

import contextlib
import ctypes
from typing import Final

# The parameters of mallopt(3), by their numbers in malloc.h, and what to set.
PARAMETERS: Final = {
    # Blocks of this size and more go back to the system when they are freed. By default, glibc raises this limit to 32 MiB as such blocks are freed.
    -3: 128 * 1024,  # M_MMAP_THRESHOLD
    # So much free memory stays at the end of the heap, so that the heap does not shrink and grow with each call.
    -1: 4 * 1024 * 1024,  # M_TRIM_THRESHOLD
    # By default each of grpc's threads gets a heap of its own, and keeps what is free in it.
    -8: 2,  # M_ARENA_MAX
}


def return_freed_memory() -> None:
    """Sets the limits. Call it before threads start. Does nothing with another C library."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in PARAMETERS.items():
            mallopt(parameter, value)
