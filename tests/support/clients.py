"""Clients of a running system, through its gateway."""

from typing import Final

import grpc.aio
import httpx

from devstack.stack import Stack

TIMEOUT_SECONDS: Final = 20.0


def rest_of(stack: Stack) -> httpx.AsyncClient:
    """Returns a client of REST, for `async with`."""
    return httpx.AsyncClient(base_url=stack.state.url, timeout=TIMEOUT_SECONDS)


def channel_of(stack: Stack) -> grpc.aio.Channel:
    """Returns a channel for gRPC, for `async with`."""
    return grpc.aio.insecure_channel(stack.state.url.removeprefix("http://"))
