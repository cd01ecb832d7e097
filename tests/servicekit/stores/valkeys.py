"""A Valkey that one test owns and may kill."""

import contextlib
import dataclasses
from collections.abc import AsyncIterator

from devstack import valkey
from devstack.data_dir import DataDir
from devstack.process import Process
from tests.support.ports import free_ports


@contextlib.asynccontextmanager
async def running_valkey(*arguments: str) -> AsyncIterator[Process]:
    """Yields the running process. The arguments are added to its command."""
    data = await DataDir.opened(None, None)
    spec = valkey.server(data, free_ports(1)[0], 10)
    spec = dataclasses.replace(spec, command=(*spec.command, *arguments))
    process = Process(spec, data.held, lambda _: None, lambda _: None)
    try:
        await process.start()
        yield process
    finally:
        await process.stop()
        data.close()


def url_of(server: Process) -> str:
    """Returns the URL on which the server listens."""
    return valkey.url(server.spec.ports["port"])
