"""The shortest path through the whole system."""

import httpx

from tests.support.accounts import Account


async def test_a_task_made_over_rest_is_read_again(rest: httpx.AsyncClient, account: Account) -> None:
    made = await rest.post("/api/v1/tasks", json={"title": "Write the plan"}, headers=account.headers)
    assert made.status_code == 201
    read = await rest.get(f"/api/v1/tasks/{made.json()['id']}", headers=account.headers)
    assert read.json() == made.json()
