"""A DNS server with one name, whose addresses a test changes. A gRPC client asks it by the target `dns://127.0.0.1:PORT/NAME:PORT`."""

import asyncio
import contextlib
import ipaddress
import struct
from collections.abc import AsyncIterator, Sequence

NAME = "auth.test"
# As long as CoreDNS lets a client keep the address of a pod, by default.
TTL_SECONDS = 5
ADDRESS, ANSWER = 1, 0x8400


class Names(asyncio.DatagramProtocol):
    """`addresses` are IPv4 addresses. `asked` counts the queries for them."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = addresses
        self.asked = 0
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # of the endpoint that `names` creates
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answers a query for addresses (RFC 1035 section 4). Other types have no records."""
        number, end = data[:2], 12
        while data[end]:
            end += data[end] + 1
        question = data[12 : end + 5]
        (kind,) = struct.unpack(">H", question[-4:-2])
        addresses = self.addresses if kind == ADDRESS else ()
        self.asked += kind == ADDRESS
        # 0xC00C refers to the name in the question.
        record = struct.pack(">HHHIH", 0xC00C, ADDRESS, 1, TTL_SECONDS, 4)
        records = b"".join(record + ipaddress.IPv4Address(address).packed for address in addresses)
        assert self._transport is not None
        self._transport.sendto(number + struct.pack(">HHHHH", ANSWER, 1, len(addresses), 0, 0) + question + records, addr)


@contextlib.asynccontextmanager
async def names(*addresses: str) -> AsyncIterator[Names]:
    """Runs the server on a free port."""
    transport, served = await asyncio.get_running_loop().create_datagram_endpoint(lambda: Names(addresses), local_addr=("127.0.0.1", 0))
    try:
        yield served
    finally:
        transport.close()
