"""A client that sends large batches over REST: `python -m tests.support.rest_uploads URL CONNECTIONS DECLARED`.

It is a program of its own, so that its work is not in the times that a test measures. Each connection sends the batch BODY again and again,
with its length if DECLARED is 1. Otherwise the body has no length, and its last byte never comes. The environment has UPLOADS_AUTHORIZATION.
"""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator

import httpx

PATH = "/api/v1/tasks:batchCreate"
# 2.8 MB: just below the limit of the gateway.
BODY = json.dumps({"requests": [{"task": {"title": "t", "description": "x" * 2800}}] * 1000}).encode()
# Longer than any test.
NEVER = 3600.0


async def _without_end() -> AsyncIterator[bytes]:
    yield BODY[:-1]
    await asyncio.sleep(NEVER)


async def _upload_always(client: httpx.AsyncClient, *, is_declared: bool) -> None:
    headers = {"authorization": os.environ["UPLOADS_AUTHORIZATION"], "content-type": "application/json"}
    while True:
        # A gateway that refuses the body may close the connection before it has read it.
        with contextlib.suppress(httpx.TransportError):
            await client.post(PATH, content=BODY if is_declared else _without_end(), headers=headers)


async def _main() -> None:
    connections = int(sys.argv[2])
    limits = httpx.Limits(max_connections=connections)
    async with httpx.AsyncClient(base_url=sys.argv[1], timeout=NEVER, limits=limits) as client, asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(_upload_always(client, is_declared=sys.argv[3] == "1"))


if __name__ == "__main__":
    asyncio.run(_main())
