"""bench.rivals beside a stand-in for the rivals' benchmark, which makes every call once and writes rows: the system answers each as that expects."""

from pathlib import Path

import pytest

from bench.aims import FASTAPI, GO, OURS
from bench.rivals import Extent, run

# The interface of the rivals' benchmark, as far as bench.rivals uses it.
STAND_IN = """
import argparse, json, sys, urllib.request
parser = argparse.ArgumentParser()
parser.add_argument("what")
for name in ("targets", "scenarios", "out", "n", "rounds", "duration", "connections", "noise", "port", "pg-port", "valkey-port", "url", "url-name",
             "token", "ids-file", "path-list", "path-deep", "body-create", "update-method", "path-update", "body-update", "body-login"):
    parser.add_argument("--" + name)
parser.add_argument("--pids", action="append")
a = parser.parse_args()
if a.targets == "url":
    def call(method, path, body=None):
        request = urllib.request.Request(a.url + path, method=method, data=body and body.encode(), headers={"content-type": "application/json"})
        request.add_header("authorization", "Bearer " + a.token)
        return json.load(urllib.request.urlopen(request, timeout=10))
    ids = open(a.ids_file).read().split()
    assert len(set(ids)) == int(a.n)
    assert call("GET", "/api/v1/tasks/" + ids[0])["title"] == "Task number 0"
    assert len(call("GET", a.path_list)["tasks"]) == 20
    last = call("GET", a.path_deep.replace("@deep@", str(int(a.n) - 20)))
    assert len(last["tasks"]) == 20 and not last["next_page_token"]
    assert call("POST", "/api/v1/tasks", a.body_create)["title"] == "Write the report"
    changed = call(a.update_method, a.path_update.replace("@id@", ids[1]), a.body_update.replace("@seq@", "7"))
    assert (changed["id"], changed["title"], changed["status"]) == (ids[1], "Write the report 7", "IN_PROGRESS")
    assert call("POST", "/api/v1/auth/login", a.body_login)["access_token"]
    assert sorted(group.partition("=")[0] for group in a.pids) == ["gateway", "postgres", "target", "valkey"]
    # auth_service, two of task_service, and the worker.
    assert len(next(group for group in a.pids if group.startswith("target")).split(",")) == 4
row = {"target": a.url_name or a.targets, "round": 1, "requests": 1}
json.dump({"rows": [row | {"scenario": scenario} for scenario in a.scenarios]}, open(a.out, "w"))
"""


@pytest.mark.slow("starts a system of its own, with passwords that cost as much as in production")
async def test_the_system_serves_what_the_rivals_benchmark_calls_and_the_targets_take_turns(tmp_path: Path) -> None:
    (tmp_path / "bench.py").write_text(STAND_IN)
    rows = await run(Extent(tmp_path, rounds=2, seconds=1, connections=1, tasks=40, scenarios="ad", noise=1))
    turns = [(row["round"], row["target"], row["scenario"]) for row in rows]
    assert turns == [
        (round_, target, scenario)
        for round_, targets in ((1, (OURS, GO, FASTAPI)), (2, (FASTAPI, GO, OURS)))
        for target in targets
        for scenario in "ad"
    ]
