"""Ports for servers that tests start themselves."""

from typing import Final

from devstack import ports

# Reserved until the test process ends: a port must stay free also while its server is down.
_RESERVED: Final[list[ports.Reservation]] = []


def free_ports(count: int) -> list[int]:
    """Returns ports on which no process listens and which no stack on this machine picks."""
    reservations = ports.reserve(count)
    _RESERVED.extend(reservations)
    return [reservation.port for reservation in reservations]
