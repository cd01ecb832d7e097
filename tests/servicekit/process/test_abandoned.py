"""A failed attempt to connect that nobody waits for is no error in the log; every other exception that was never retrieved is."""

import asyncio
import gc
import logging
import socket

import pytest

from servicekit.process import abandoned


async def _forgotten(error: Exception) -> None:
    asyncio.get_running_loop().create_future().set_exception(error)
    gc.collect()


@pytest.mark.parametrize("error", [socket.gaierror(socket.EAI_NONAME, "Name or service not known"), ConnectionRefusedError()])
async def test_an_abandoned_attempt_is_no_error(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    abandoned.install()
    await _forgotten(error)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_another_error_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    abandoned.install()
    await _forgotten(ValueError("a defect"))
    assert ["a defect" in record.exc_text for record in caplog.records if record.exc_text] == [True]
