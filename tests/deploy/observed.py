"""A running system as Prometheus sees it: the metrics of its ops ports, and a real Prometheus that scrapes them."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from devstack.stack import Stack
from devstack.state import kind_of
from tests.deploy.promql import Labels
from tests.support.ports import free_ports
from tests.support.tools import required
from tests.support.waiting import eventually

JOBS: Final = {"auth": "auth-service", "task": "task-service", "task-worker": "task-worker", "gateway": "gateway"}
HOW: Final = "the Debian package prometheus has it"
STARTS_WITHIN_SECONDS: Final = 20
# Not prometheus_client's parser, which appends `_total` to every counter: Envoy's counters have no such suffix, and Prometheus keeps names unchanged.
_SAMPLE: Final = re.compile(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})? ")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def targets(system: Stack) -> Iterator[tuple[str, Labels]]:
    """Yields the address of each ops port, with the labels that a PodMonitor adds to the metrics scraped there."""
    for name, process in system.state.processes.items():
        job = JOBS.get(kind_of(name))
        if job and process.ops_port:
            address = f"127.0.0.1:{process.ops_port}"
            yield address, {"namespace": "test", "release": "test", "job": job, "pod": name, "instance": address}


async def scraped(system: Stack) -> list[tuple[str, Labels]]:
    """Returns all series of all ops ports, with the labels that Prometheus would store."""
    series: list[tuple[str, Labels]] = []
    async with httpx.AsyncClient(timeout=10) as client:
        for address, labels in targets(system):
            lines = (await client.get(f"http://{address}/metrics")).text.splitlines()
            matches = [match for line in lines if (match := _SAMPLE.match(line))]
            series += [("up", labels), *((match[1], {**dict(_LABEL.findall(match[2] or "")), **labels}) for match in matches)]
    return series


class Prometheus:
    """A client of the HTTP API of a running Prometheus."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def query(self, promql: str) -> list[Any]:
        """Returns the result of an instant query. If Prometheus rejects the query, fails the test with its message."""
        answer = (await self._client.post("/api/v1/query", data={"query": promql})).json()
        assert answer["status"] == "success", f"{promql}: {answer.get('error')}"
        result: list[Any] = answer["data"]["result"]
        return result

    async def rules(self) -> list[Any]:
        """Returns all rules with the result of their last evaluation."""
        answer = (await self._client.get("/api/v1/rules")).json()
        return [rule for group in answer["data"]["groups"] for rule in group["rules"]]


@contextlib.asynccontextmanager
async def prometheus(system: Stack, rules: Sequence[Path], folder: Path) -> AsyncIterator[Prometheus]:
    """Starts a real Prometheus on a free port. It scrapes the system and evaluates the rules every second."""
    program, (port,) = required("prometheus", HOW), free_ports(1)
    config = folder / "prometheus.yaml"
    jobs: dict[str, list[Any]] = {}
    for address, labels in targets(system):
        given = {name: value for name, value in labels.items() if name not in {"job", "instance"}}
        jobs.setdefault(labels["job"], []).append({"targets": [address], "labels": given})
    scrapes = [{"job_name": job, "static_configs": configs} for job, configs in jobs.items()]
    every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config.write_text(yaml.safe_dump({"global": every, "rule_files": [str(file) for file in rules], "scrape_configs": scrapes}), encoding="utf-8")
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"),
            stdout=log,
            stderr=log,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:

            async def is_ready() -> None:
                assert process.returncode is None, (folder / "prometheus.log").read_text()[-2000:]
                assert (await client.get("/-/ready")).status_code == 200

            await eventually(is_ready, within=STARTS_WITHIN_SECONDS)
            yield Prometheus(client)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def traffic(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """Makes some calls of each kind that metrics count: successful and failing calls, a change of a task, a reminder, and a stream that gets both.

    A webhook gets them too, or rather nobody does: nothing listens at its URL.
    """
    (port,) = free_ports(1)
    webhook = {"url": f"http://127.0.0.1:{port}/", "event_types": ["task.updated"]}
    assert (await client.post("/api/v1/webhooks", json=webhook, headers=headers)).status_code == 201
    task = (await client.post("/api/v1/tasks", json={"title": "watched"}, headers=headers)).json()
    async with client.stream("GET", "/api/v1/tasks:watch", headers=headers) as watch:
        lines = watch.aiter_lines()
        assert "CHECKPOINT" in await anext(lines)
        changed = {"title": "seen", "reminders": [{"at": (datetime.now(UTC) + timedelta(seconds=1)).isoformat()}]}
        assert (await client.patch(f"/api/v1/tasks/{task['id']}", json=changed, headers=headers)).status_code == 200
        awaited = ["UPDATED", "REMINDER"]
        async for line in lines:
            if line.startswith("data:") and json.loads(line.removeprefix("data:"))["kind"] == awaited[0]:
                awaited.pop(0)
                if not awaited:
                    break
    for _ in range(3):
        assert (await client.get(f"/api/v1/tasks/{task['id']}", headers=headers)).status_code == 200
    assert (await client.get("/api/v1/tasks", headers=headers)).status_code == 200
    assert (await client.get("/api/v1/users/me", headers=headers)).status_code == 200
    assert (await client.get("/api/v1/tasks/0190b5a0-0000-7000-8000-000000000001", headers=headers)).status_code == 404
    assert (await client.get("/api/v1/tasks")).status_code == 401
