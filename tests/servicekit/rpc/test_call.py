"""The client's address: the one that the gateway sends; without a gateway, the other end of the connection."""

from typing import Any

import pytest
from taskmanager.task.v1 import task_pb2

from servicekit.rpc.call import CLIENT_ADDRESS, MAX_ADDRESS_CHARACTERS, Call
from tests.servicekit.rpc.serving import GOOD, serving


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.7:50123", "192.0.2.7"),
        ("ipv6:[2001:db8::7]:50123", "2001:db8::7"),
        ("ipv6:%5B2001:db8::7%5D:50123", "2001:db8::7"),
        ("ipv6:%5Bfe80::1%25eth0%5D:50123", "fe80::1%eth0"),
        ("unix:/run/socket", "unix"),
        ("unix:", "unix"),
        ("unknown", "unknown"),
        ("", ""),
    ],
)
def test_without_the_gateway_it_is_the_other_end(peer: str, address: str) -> None:
    assert Call({}, None, peer=lambda: peer).client_address == address


def test_what_the_gateway_says_counts_more() -> None:
    assert Call({CLIENT_ADDRESS: "203.0.113.9"}, None, peer=lambda: "ipv4:192.0.2.7:1").client_address == "203.0.113.9"


def test_it_is_bounded() -> None:
    assert Call({CLIENT_ADDRESS: "x" * 1000}, None).client_address == "x" * MAX_ADDRESS_CHARACTERS
    assert Call({}, None).client_address == ""


async def test_on_a_real_connection_it_is_this_machine() -> None:
    seen: list[str] = []

    async def look(_: Any, call: Call) -> task_pb2.Task:
        # Read during the call, because grpc's context crashes the process if it is read after the call.
        seen.append(call.client_address)
        return task_pb2.Task()

    async with serving() as server:
        server.tasks.behaviour = look
        await server.get_task()
        await server.get_task(metadata=(*GOOD, (CLIENT_ADDRESS, "203.0.113.9")))
    assert seen == ["127.0.0.1", "203.0.113.9"]
