"""A Valkey of a test's own, to be killed."""

import contextlib
from collections.abc import AsyncIterator

from devstack import valkey
from devstack.data_dir import DataDir
from devstack.process import Process
from tests.support.ports import free_ports


@contextlib.asynccontextmanager
async def running_valkey() -> AsyncIterator[Process]:
    """The process, which runs."""
    data = await DataDir.opened(None, None)
    spec = valkey.server(data, free_ports(1)[0], 10)
    process = Process(spec, data.held, lambda _: None, lambda _: None)
    try:
        await process.start()
        yield process
    finally:
        await process.stop()
        data.close()


def url_of(server: Process) -> str:
    """Where it listens."""
    return valkey.url(server.spec.ports["port"])
