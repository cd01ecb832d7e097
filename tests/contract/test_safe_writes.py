"""The contract of writes over REST and gRPC: update masks, etags and If-Match, the bin, and the form of idempotency keys."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest

from devstack.stack import Stack
from tests.contract.calls import ABORTED, ALREADY_EXISTS, INVALID, NOT_FOUND, Call, over_grpc, over_rest, refusal
from tests.contract.conftest import Ways
from tests.contract.table import NO_ID, World, filled, make_world, row_of
from tests.support import rawhttp
from tests.support.accounts import Account
from tests.support.descriptors import Rpc, named, rpcs
from tests.support.errors import of_response
from tests.support.tiers import sampled

TASKS = "/api/v1/tasks"

# The requests of the methods that take an etag.
WITH_ETAG: Mapping[str, Callable[[str, str], dict[str, Any]]] = {
    "UpdateTask": lambda id_, etag: {"task": {"id": id_, "title": "Changed", "etag": etag}, "update_mask": "title"},
    "ReplaceTask": lambda id_, etag: {"task": {"id": id_, "title": "Changed", "etag": etag}},
    "DeleteTask": lambda id_, etag: {"id": id_, "etag": etag},
    "UpdateProject": lambda id_, etag: {"project": {"id": id_, "name": "Changed", "etag": etag}, "update_mask": "name"},
    "UpdateWebhook": lambda id_, etag: {"webhook": {"id": id_, "description": "Changed", "etag": etag}, "update_mask": "description"},
    **dict.fromkeys(("DeleteWebhook", "RotateWebhookSecret"), lambda id_, etag: {"id": id_, "etag": etag}),
    **dict.fromkeys(
        ("UndeleteTask", "MoveTask", "DeleteProject", "UndeleteProject", "ArchiveProject", "UnarchiveProject", "MoveProject"),
        lambda id_, etag: {"id": id_, "etag": etag},
    ),
}
with_etag = pytest.mark.parametrize("name", WITH_ETAG)
without_if_match = pytest.mark.parametrize(
    "name", ["CreateTask", "BatchCreateTasks", "BatchUpdateTasks", "BatchDeleteTasks", "CreateProject", "CreateWebhook"]
)
# The methods that name a task or a project which is not in the bin. The history of a task in the bin can be read.
of_live_objects = pytest.mark.parametrize(
    ("rpc", "kind"),
    [
        (rpc, kind)
        for rpc in rpcs()
        for kind in ("task", "project")
        if rpc.program == "task" and f"${kind}_id" in str(row_of(rpc.name).message) and not rpc.name.endswith(".ListTaskChanges")
    ],
)


def _kind(name: str) -> str:
    """Returns the kind of the method's target."""
    return next((kind for kind in ("webhook", "project") if kind.title() in name), "task")


def _named(name: str) -> str:
    """Returns the name of the method's target in its world."""
    return f"{'binned_' if name.startswith('Undelete') else ''}{_kind(name)}_id"


@pytest.fixture
async def acted(request: pytest.FixtureRequest, rest: httpx.AsyncClient) -> tuple[World, Account]:
    """A world of the test's own, and the account that acts in it. If the test is about one method, the world has only what this one needs."""
    of = getattr(request.node, "callspec", None)
    name = of and of.params.get("name")
    return await make_world(rest, *([f"${_named(name)}", row_of(named(name).name).message] if name else []))


async def _target(call: Call, name: str, acted: tuple[World, Account]) -> tuple[str, str, str]:
    """Returns the method's target, its etag, and an earlier etag."""
    world, account = acted
    target, kind = getattr(world, _named(name)), _kind(name)
    if not name.startswith("Undelete"):
        changed = await call(f"Update{kind.title()}", {kind: {"id": target, "description": "between"}}, account)
        assert changed.error is None
    return target, '"2"', '"1"'


# Etags.


@with_etag
@pytest.mark.parametrize("form", sampled(["{now}", '"77", {now}', '{before},{now} , "x"', "*"], every=2))
async def test_if_match_lets_through_whoever_has_the_etag_of_now(call: Call, acted: tuple[World, Account], name: str, form: str) -> None:
    task_id, now, before = await _target(call, name, acted)
    answer = await call(name, WITH_ETAG[name](task_id, ""), acted[1], if_match=form.format(now=now, before=before))
    assert answer.error is None


@with_etag
@pytest.mark.parametrize("headers", [{}, {"if_match": "{now}"}, {"if_match": '"9",{now}'}, {"if_match": "*"}], ids=str)
async def test_so_does_the_etag_in_the_message(call: Call, acted: tuple[World, Account], name: str, headers: Mapping[str, str]) -> None:
    task_id, now, _ = await _target(call, name, acted)
    answer = await call(name, WITH_ETAG[name](task_id, now), acted[1], **{key: value.format(now=now) for key, value in headers.items()})
    assert answer.error is None


@with_etag
@pytest.mark.parametrize(
    ("etag", "if_match"),
    [
        ("{before}", None),
        ("{before}", "*"),
        ("{before}", "{before}"),
        ("2", None),
        ("W/{now}", None),
        ("x", None),
        ("", "{before}"),
        ("", '"9", "x"'),
        ("", '""'),
        # RFC 9110 §13.1.1: If-Match uses the strong comparison.
        ("", "W/{now}"),
    ],
)
async def test_another_etag_is_aborted_with_the_one_of_now(
    call: Call, acted: tuple[World, Account], name: str, etag: str, if_match: str | None
) -> None:
    task_id, now, before = await _target(call, name, acted)
    headers = {} if if_match is None else {"if_match": if_match.format(now=now, before=before)}
    error = refusal(await call(name, WITH_ETAG[name](task_id, etag.format(now=now, before=before)), acted[1], **headers))
    assert (error.code, error.reason, error.metadata) == (ABORTED, "ETAG_MISMATCH", {"etag": now})
    # The rejected write did not change the etag.
    assert (await call(name, WITH_ETAG[name](task_id, now), acted[1])).error is None


@with_etag
@pytest.mark.parametrize("if_match", sampled(["", "1", '"1', '1"', '"1",', ',"1"', '"1" "2"', '*,"1"', "**", 'w/"1"', '"a b"', '"1"; "2"'], every=3))
async def test_an_if_match_of_another_form_is_refused(call: Call, acted: tuple[World, Account], name: str, if_match: str) -> None:
    task_id, now, _ = await _target(call, name, acted)
    error = refusal(await call(name, WITH_ETAG[name](task_id, now), acted[1], if_match=if_match))
    assert (error.code, error.reason, list(error.fields)) == (INVALID, "INVALID_FIELD", ["if-match"])


@with_etag
async def test_message_and_if_match_must_not_disagree(call: Call, acted: tuple[World, Account], name: str) -> None:
    task_id, now, before = await _target(call, name, acted)
    for etag, if_match in ((now, before), (before, now), (before, '"8","9"')):
        error = refusal(await call(name, WITH_ETAG[name](task_id, etag), acted[1], if_match=if_match))
        assert (error.code, list(error.fields)) == (INVALID, ["if-match"])


@without_if_match
@pytest.mark.parametrize("if_match", ["*", '"1"', "x"])
async def test_if_match_is_refused_where_it_means_nothing(call: Call, acted: tuple[World, Account], name: str, if_match: str) -> None:
    world, account = acted
    error = refusal(await call(name, filled(row_of(named(name).name).message, world), account, if_match=if_match))
    assert (error.code, error.reason, list(error.fields)) == (INVALID, "INVALID_FIELD", ["if-match"])


async def test_two_if_match_lines_are_one_list(system: Stack, acted: tuple[World, Account]) -> None:
    """RFC 9110 §5.3: the service reads the etags of both lines."""
    world, account = acted
    for lines in ((b'if-match: "1"', b'if-match: "8"'), (b'if-match: "8"', b'if-match: "2"')):
        head = (f"authorization: Bearer {account.access_token}".encode(), b"content-type: application/json", *lines)
        path = f"{TASKS}/{world.task_id}".encode()
        response = await rawhttp.send(system.state.url, rawhttp.RawRequest(b"PATCH", path, head, b'{"title": "%s"}' % lines[0][-2:-1]))
        assert response.status_code == httpx.codes.OK, response.text


async def test_in_what_is_new_an_etag_is_ignored_whatever_it_is(call: Call, account: Account) -> None:
    """A creation ignores the etag, like all fields that the server sets. The etag is no precondition here, so the service does not reject it."""
    for etag in ('"7"', "x" * 65, "𝄞" * 1000):
        task = {"title": "a", "etag": etag, "id": "not-an-id"}
        assert (await call("CreateTask", {"task": task}, account)).values["etag"] == '"1"'
        assert (await call("BatchCreateTasks", {"requests": [{"task": task}]}, account)).values["tasks"][0]["etag"] == '"1"'


async def test_where_it_counts_an_etag_has_a_bound(call: Call, acted: tuple[World, Account]) -> None:
    world, account = acted
    for etag, code in (("𝄞" * 64, ABORTED), ("𝄞" * 65, INVALID)):
        task = {"id": world.task_id, "title": "Changed", "etag": etag}
        for name in ("UpdateTask", "ReplaceTask"):
            error = refusal(await call(name, {"task": task}, account))
            assert (error.code, list(error.fields)) == (code, ["task.etag"] if code == INVALID else [])
        error = refusal(await call("BatchUpdateTasks", {"requests": [{"task": task}]}, account))
        assert (error.code, list(error.fields)) == (code, ["requests[0].task.etag"] if code == INVALID else [])
        error = refusal(await call("UpdateProject", {"project": {"id": world.project_id, "name": "Changed", "etag": etag}}, account))
        assert (error.code, list(error.fields)) == (code, ["project.etag"] if code == INVALID else [])


# Masks.


FULL = {"title": "Plan", "description": "All.", "status": "IN_PROGRESS", "priority": 4, "due_date": "2027-01-31T12:00:00Z", "labels": ["home"]}
FRESH = {"description": "", "status": "PENDING", "priority": 3, "labels": []}


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        ({"description": ""}, {"description": ""}),
        ({"labels": []}, {}),
        ({"labels": None, "due_date": None, "description": None, "title": None}, {}),
        ({"created_at": "2000-01-01T00:00:00Z", "deleted_at": "2000-01-01T00:00:00Z", "user_id": NO_ID}, {}),
        ({}, {}),
    ],
    ids=str,
)
async def test_without_a_mask_what_is_present_is_meant(
    rest: httpx.AsyncClient, account: Account, body: Mapping[str, Any], changed: Mapping[str, Any]
) -> None:
    task = (await rest.post(TASKS, json=FULL, headers=account.headers)).json()
    patched = (await rest.patch(f"{TASKS}/{task['id']}", json=body, headers=account.headers)).json()
    of_its_own = {"etag": '"2"', "updated_at": patched["updated_at"]} if changed else {}
    assert patched == {**task, **changed, **of_its_own}


@pytest.mark.parametrize(
    ("task", "mask", "fields"),
    [
        ({"priority": 0}, None, ["task.priority"]),
        ({"status": "STATUS_UNSPECIFIED"}, None, ["task.status"]),
        ({"title": "Other", "status": "STATUS_UNSPECIFIED", "priority": 0}, None, ["task.priority", "task.status"]),
        ({"priority": 0, "status": "STATUS_UNSPECIFIED"}, "priority,status", []),
        ({}, "priority,status", []),
        ({"priority": 0, "status": "STATUS_UNSPECIFIED", "title": "Plan"}, "*", []),
    ],
    ids=str,
)
async def test_a_zero_resets_a_field_only_if_the_mask_names_it(
    call: Call, account: Account, task: Mapping[str, Any], mask: str | None, fields: list[str]
) -> None:
    """AIP-134: the mask decides. Without a mask, a zero could be meant or a mistake, so the service rejects it."""
    made = (await call("CreateTask", {"task": FULL}, account)).values
    update = {"task": {**task, "id": made["id"]}, **({"update_mask": mask} if mask else {})}
    answer = await call("UpdateTask", update, account)
    if not fields:
        assert (answer.values["status"], answer.values["priority"]) == ("PENDING", 3)
        return
    assert sorted(refusal(answer).fields) == fields
    batch = refusal(await call("BatchUpdateTasks", {"requests": [update]}, account))
    assert sorted(batch.fields) == [f"requests[0].{field}" for field in fields]
    assert (await call("GetTask", {"id": made["id"]}, account)).values == made


@pytest.mark.parametrize(
    ("query", "changed"),
    [
        ("update_mask=title&update_mask=description", {"title": "Other", "description": "Changed."}),
        ("update_mask=title,title&update_mask=title", {"title": "Other"}),
        ("update_mask=title&update_mask=", {"title": "Other"}),
        ("update_mask=", {"title": "Other", "description": "Changed.", "priority": 1}),
    ],
)
async def test_a_mask_that_is_given_twice_names_all_of_its_fields(
    rest: httpx.AsyncClient, account: Account, query: str, changed: Mapping[str, Any]
) -> None:
    task = (await rest.post(TASKS, json=FULL, headers=account.headers)).json()
    body = {"title": "Other", "description": "Changed.", "priority": 1}
    patched = (await rest.patch(f"{TASKS}/{task['id']}?{query}", json=body, headers=account.headers)).json()
    assert patched == {**task, **changed, "etag": '"2"', "updated_at": patched["updated_at"]}


async def test_a_star_is_all_fields_and_what_is_absent_is_as_in_a_new_task(call: Call, account: Account) -> None:
    for name, mask in (("UpdateTask", {"update_mask": "*"}), ("ReplaceTask", {})):
        task = (await call("CreateTask", {"task": FULL}, account)).values
        changed = (await call(name, {"task": {"id": task["id"], "title": "Other"}, **mask}, account)).values
        assert task.pop("due_date") == task.pop("due_at") == FULL["due_date"]
        assert changed == {**task, **FRESH, "title": "Other", "etag": '"2"', "updated_at": changed["updated_at"]}
        assert list(refusal(await call(name, {"task": {"id": task["id"]}, **mask}, account)).fields) == ["task.title"]


# The bin.


@of_live_objects
async def test_what_is_in_the_bin_is_not_found(call: Call, acted: tuple[World, Account], rpc: Rpc, kind: str) -> None:
    world, account = acted
    short = rpc.name.rpartition(".")[2]
    ids = (getattr(world, f"binned_{kind}_id"), NO_ID)
    binned, never = [refusal(await call(short, filled(row_of(rpc.name).message, replace(world, **{f"{kind}_id": id_})), account)) for id_ in ids]
    assert (binned.code, binned.reason) == (NOT_FOUND, f"{kind.upper()}_NOT_FOUND")
    assert binned == never
    assert (await call(f"Undelete{kind.title()}", {"id": ids[0], "etag": '"2"'}, account)).error is None


async def test_what_is_not_in_the_bin_cannot_be_brought_back(call: Call, acted: tuple[World, Account]) -> None:
    """AIP-164, also if the request has a wrong etag."""
    world, account = acted
    for headers in ({}, {"if_match": '"9"'}):
        for kind in ("task", "project"):
            error = refusal(await call(f"Undelete{kind.title()}", {"id": getattr(world, f"{kind}_id")}, account, **headers))
            assert (error.code, error.reason) == (ALREADY_EXISTS, f"{kind.upper()}_NOT_DELETED")


@pytest.mark.parametrize("body", [None, b"", b"{}", b'{"no_such_field": 1}', b'{"etag": "\\"2\\""}'], ids=str)
async def test_undelete_needs_no_body(rest: httpx.AsyncClient, acted: tuple[World, Account], body: bytes | None) -> None:
    world, account = acted
    response = await rest.post(f"{TASKS}/{world.binned_task_id}:undelete", content=body, headers=account.headers)
    assert response.status_code == httpx.codes.OK, response.text
    assert (response.json()["id"], "deleted_at" in response.json()) == (world.binned_task_id, False)


@pytest.mark.parametrize(("query", "body"), [("", {"id": "{other}"}), ("?id={other}", {}), ("?id={other}", None), ("/", {})], ids=str)
async def test_the_path_says_what_is_brought_back(rest: httpx.AsyncClient, query: str, body: Mapping[str, str] | None) -> None:
    world, account = await make_world(rest)
    other = world.second_task_id
    await rest.delete(f"{TASKS}/{other}", headers=account.headers)
    content = None if body is None else {name: value.format(other=other) for name, value in body.items()}
    response = await rest.post(f"{TASKS}/{world.binned_task_id}:undelete{query.format(other=other)}", json=content, headers=account.headers)
    assert response.status_code in {400, 404}, response.text
    assert of_response(response).code in {INVALID, NOT_FOUND}
    for task_id in (other, world.binned_task_id):
        assert (await rest.get(f"{TASKS}/{task_id}", headers=account.headers)).status_code == httpx.codes.NOT_FOUND


# Idempotency keys.


@pytest.mark.parametrize("key", ["", "k" * 256], ids=["empty", "256"])
@pytest.mark.parametrize("rpc", [rpc for rpc in rpcs() if rpc.program == "task" and rpc.writes], ids=lambda rpc: rpc.name)
async def test_a_key_of_another_form_is_refused(call: Call, acted: tuple[World, Account], rpc: Rpc, key: str) -> None:
    world, account = acted
    error = refusal(await call(rpc.name.rpartition(".")[2], filled(row_of(rpc.name).message, world), account, idempotency_key=key))
    assert (error.code, error.reason, list(error.fields)) == (INVALID, "INVALID_FIELD", ["idempotency-key"])


@pytest.mark.parametrize("key", [" ", "   "], ids=["blank", "blanks"])
async def test_a_key_of_blanks_is_refused_as_an_empty_one(ways: Ways, account: Account, key: str) -> None:
    """HTTP/1.1 removes the blanks around a value, gRPC does not."""
    for channel in (ways.gateway, ways.services["task"]):
        error = refusal(await over_grpc(channel)("CreateTask", {"task": {"title": "a"}}, account, idempotency_key=key))
        assert (error.code, error.reason, list(error.fields)) == (INVALID, "INVALID_FIELD", ["idempotency-key"])


async def test_blanks_around_a_key_do_not_matter(ways: Ways, account: Account) -> None:
    request = {"task": {"title": "a"}}
    first = await over_rest(ways.rest)("CreateTask", request, account, idempotency_key="blanks around")
    for channel in (ways.gateway, ways.services["task"]):
        again = await over_grpc(channel)("CreateTask", request, account, idempotency_key="  blanks around ")
        assert (again.replayed, again.values["id"]) == ("true", first.values["id"])


@pytest.mark.parametrize("value", ["ключ".encode(), b"\xff\xfe", b"a\tb"], ids=["utf-8", "latin-1", "tab"])
async def test_a_key_that_is_not_printable_ascii_is_refused(system: Stack, account: Account, value: bytes) -> None:
    head = (f"authorization: Bearer {account.access_token}".encode(), b"content-type: application/json", b"idempotency-key: " + value)
    response = await rawhttp.send(system.state.url, rawhttp.RawRequest(b"POST", TASKS.encode(), head, b'{"title": "a"}'))
    error = of_response(response)
    assert (response.status_code, error.code) == (400, INVALID), response.text
    assert list(error.fields) == ["idempotency-key"], response.text


@pytest.mark.parametrize("key", ["k", "k" * 255, "".join(map(chr, range(0x21, 0x7F))), "two words"], ids=["1", "255", "all", "space"])
async def test_a_key_may_be_any_printable_ascii(call: Call, account: Account, key: str) -> None:
    first, again = [await call("CreateTask", {"task": {"title": "a"}}, account, idempotency_key=key) for _ in range(2)]
    assert (first.replayed, again.replayed) == (None, "true")
    assert first.values == again.values
