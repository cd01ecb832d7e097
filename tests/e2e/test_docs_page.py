"""The API reference at /docs in a real browser: log in, create a task, list it, watch; at the width of a phone, and in light and dark mode.

The pictures are in the folder that DOCS_PICTURES names, if it is set.
"""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from devstack.stack import Stack
from tests.support import chromium
from tests.support.accounts import Account, make_account
from tests.support.waiting import eventually

WITHIN_SECONDS = 60.0
PHONE, DESK = (360, 800), (1280, 900)
READY = "document.documentElement.dataset.ready === 'true' && document.querySelectorAll('.opblock').length"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# Types into a field as React expects it: its own setter would hide the change.
TYPE = """((field, text) => {
    Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), "value").set.call(field, text);
    field.dispatchEvent(new Event("input", {bubbles: true}));
    field.dispatchEvent(new Event("change", {bubbles: true}));
})"""


@pytest.fixture
async def page(system: Stack) -> AsyncIterator[chromium.Page]:
    """The page, loaded."""
    chromium.require()
    async with chromium.showing(f"{system.state.url}/docs") as page:
        await page.collect_problems()
        await _sized(page, DESK)
        await _until(page, READY)
        yield page


async def _until(page: chromium.Page, condition: str) -> None:
    """Waits until a JavaScript expression is true."""

    async def holds() -> None:
        assert await page.evaluate(f"!!({condition})"), condition

    await eventually(holds, within=WITHIN_SECONDS)


async def _sized(page: chromium.Page, size: tuple[int, int]) -> None:
    await page.command("Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=False)


async def _picture(page: chromium.Page, name: str) -> None:
    if folder := os.environ.get("DOCS_PICTURES"):
        _write(Path(folder, f"{name}.png"), await page.screenshot())


def _write(file: Path, content: bytes) -> None:
    file.write_bytes(content)


async def _log_in(page: chromium.Page, email: str, password: str) -> None:
    form = "document.querySelector('#login')"
    await page.evaluate(f"{form}.email.value = {json.dumps(email)}; {form}.password.value = {json.dumps(password)}; {form}.requestSubmit()")


def _operation(name: str) -> str:
    return f"document.querySelector(\"[id^='operations-'][id$='-{name}']\")"


async def _open(page: chromium.Page, name: str) -> None:
    await page.evaluate(f"{_operation(name)}.querySelector('.opblock-summary-control').click()")
    await _until(page, f"{_operation(name)}.querySelector('.execute')")


async def _execute(page: chromium.Page, name: str, body: str = "") -> None:
    """Opens an operation and sends its request, with the body or the example."""
    await _open(page, name)
    if body:
        await page.evaluate(f"{TYPE}({_operation(name)}.querySelector('textarea.body-param__text'), {json.dumps(body)})")
    await page.evaluate(f"{_operation(name)}.querySelector('.execute').click()")


def _answer(name: str) -> str:
    """Returns the expression of the text that an operation shows as the server's answer."""
    return f"({_operation(name)}.querySelector('.live-responses-table')?.innerText ?? '')"


async def test_log_in_create_list_and_watch(page: chromium.Page, rest: httpx.AsyncClient) -> None:
    account = await make_account(rest)
    await _log_in(page, account.email, "not the password")
    await _until(page, "document.querySelector('#message.error')")
    await _log_in(page, account.email, account.password)
    await _until(page, "!document.querySelector('#session').hidden && document.querySelector('#login').hidden")
    await _execute(page, "watchTasks")
    await _until(page, f"{_answer('watchTasks')}.includes('CHECKPOINT')")
    await _execute(page, "createTask", '{"title": "From the browser"}')
    await _until(page, f"{_answer('createTask')}.includes('201')")
    # The stream has not ended, and shows the new task.
    await _until(page, f"{_answer('watchTasks')}.includes('From the browser')")
    await _execute(page, "listTasks")
    await _until(page, f"{_answer('listTasks')}.includes('From the browser')")
    await page.evaluate(f"{_operation('watchTasks')}.scrollIntoView()")
    await _picture(page, "watch")
    await page.evaluate(f"{_operation('watchTasks')}.querySelector('.btn-clear').click()")
    await _until(page, f"!{_answer('watchTasks')}.includes('CHECKPOINT')")
    await rest.post("/api/v1/tasks", json={"title": "Another"}, headers=account.headers)
    await page.evaluate("document.querySelector('#logout').click()")
    await _until(page, "!document.querySelector('#login').hidden")
    assert await page.evaluate(_answer("watchTasks")) == ""
    await _logged_out(rest, account)
    # The only problem is the refused password.
    assert [problem for problem in page.problems if "401" not in problem] == []
    assert len(page.problems) == 1


async def _logged_out(rest: httpx.AsyncClient, account: Account) -> None:
    """The page has ended its session: the account has only the one of the test."""

    async def one_session() -> None:
        answer = await rest.get("/api/v1/auth/sessions", headers=account.headers)
        assert len(answer.json()["sessions"]) == 1

    await eventually(one_session, within=WITHIN_SECONDS)


async def test_it_fits_a_phone_and_follows_the_color_scheme(page: chromium.Page) -> None:
    for scheme, dark in (("light", False), ("dark", True)):
        await page.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        await _until(page, f"document.documentElement.classList.contains('dark-mode') === {json.dumps(dark)}")
        await _sized(page, DESK)
        assert await page.evaluate(OVERFLOW) == 0
        await _picture(page, scheme)
        await _sized(page, PHONE)
        await _until(page, f"{OVERFLOW} === 0")
        await _picture(page, f"{scheme}-phone")
    for name in ("createTask", "listTasks"):
        await _open(page, name)
        await page.evaluate(f"{_operation(name)}.scrollIntoView()")
        await _until(page, f"{OVERFLOW} === 0")
        await _picture(page, f"{name}-phone")
    assert page.problems == []
