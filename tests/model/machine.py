"""A Hypothesis state machine. It makes the same calls to the system and to the model; their answers must be equal."""

import asyncio
import itertools
import unicodedata
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.model.tasks import FIELDS, FILTERS, Done, Item, Query, Refused, Task, Tasks, Write, etag_of, version_of
from tests.model.ways import Grpc, Way, changes, page, read, write
from tests.support.accounts import Account

T = TypeVar("T")

USERS = 2
NOBODYS = "01890000-0000-7000-8000-000000000000"
LOG = "SELECT seq, kind, task_id, version FROM task.changes WHERE user_id = $1 ORDER BY seq"
COUNTER = "SELECT last_seq, ARRAY[pending, in_progress, completed] AS counted FROM task.counters WHERE user_id = $1"
COUNTED = """
    SELECT ARRAY[count(*) FILTER (WHERE status = 1), count(*) FILTER (WHERE status = 2), count(*) FILTER (WHERE status = 3)] AS counted
      FROM task.tasks WHERE user_id = $1 AND deleted_at IS NULL
"""

# Few values, so that ties and updates without a change occur; and some arbitrary text.
plain = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
titles = st.sampled_from(["Plan", "plan", "Ärger", "Zeit", "\N{GRINNING FACE}"]) | st.text(plain, max_size=199).map(
    lambda text: unicodedata.normalize("NFC", f"x{text}")  # the system normalizes every text, and rejects a title without a visible character
).filter(lambda text: len(text) <= 200)
due_dates = st.sampled_from([datetime(2026, 5, day, 10, 0, 0, day * 1000, UTC) for day in (1, 2, 3)] + [datetime(2026, 5, 4, 0, 0, 0, 1, UTC)])
field_values: Mapping[str, st.SearchStrategy[Any]] = {
    "title": titles,
    "description": st.sampled_from(["", "All of it."]) | st.text(plain, max_size=50).map(lambda text: unicodedata.normalize("NFC", text)),
    "status": st.sampled_from(["STATUS_UNSPECIFIED", "PENDING", "IN_PROGRESS", "COMPLETED"]),
    "priority": st.integers(0, 5),
    "due_date": due_dates,
    "labels": st.lists(st.sampled_from(["a", "b", "später"]), min_size=1, max_size=3, unique=True),
}
any_fields = st.fixed_dictionaries({}, optional=field_values)
new_fields = st.fixed_dictionaries({"title": titles}, optional={name: value for name, value in field_values.items() if name != "title"})
mostly_new_fields = st.one_of(new_fields, new_fields, new_fields, any_fields)
some_fields = st.lists(st.sampled_from(FIELDS), max_size=3).map(tuple)
masks = st.one_of(st.just(()), st.just(()), st.just(("*",)), some_fields, some_fields, some_fields, st.just(("title", "user_id")))
# The relation of the requested etag to the task's current one. Most requests have no etag.
etags = st.sampled_from([*[""] * 8, "now", "now", "now", "before", "after", "weak", "bare", "padded"])
if_matches = st.sampled_from([*[""] * 12, "*", "now", "one of", "before", "bare"])
keys = st.sampled_from([*[""] * 8, "first", "second", "third"])
orders = st.lists(
    st.tuples(st.sampled_from(["created_at", "updated_at", "due_date", "priority", "title"]), st.booleans()), max_size=3, unique_by=lambda key: key[0]
).map(tuple)
queries = st.builds(
    Query,
    status=st.sampled_from(["", "", "", "PENDING", "IN_PROGRESS", "COMPLETED"]),
    priority=st.sampled_from([0, 0, 0, 3, 5]),
    filter=st.sampled_from(sorted(FILTERS)),
    order=orders,
) | st.builds(
    # Not by update time, because the model does not know it for tasks in the bin.
    Query,
    filter=st.sampled_from(sorted(FILTERS)),
    show_deleted=st.just(True),
    order=orders.map(lambda order: tuple(key for key in order if key[0] != "updated_at")),
)
users = st.integers(0, USERS - 1)
# Indexes from the user's newest task backwards, including tasks in the bin. -1 is an id that no task has, -2 another user's newest task.
NOBODY, ANOTHER = -1, -2
picks = st.sampled_from([NOBODY, ANOTHER, *range(4), *range(8)])
ways = st.integers(0, 3)


@dataclass(frozen=True, slots=True)
class World:
    """The running system. Its event loop runs in another thread."""

    loop: asyncio.AbstractEventLoop
    # Directly to one replica, without the gateway.
    straight: Grpc
    ways: Sequence[Way]
    new_account: Callable[[], Awaitable[Account]]
    database: "asyncpg.Pool[asyncpg.Record]"

    def run(self, *calls: Awaitable[T]) -> list[T]:
        """Makes calls concurrently and returns their results."""

        async def gathered() -> list[T]:
            return list(await asyncio.gather(*calls))

        return asyncio.run_coroutine_threadsafe(gathered(), self.loop).result()


class Machine(RuleBasedStateMachine):
    """Two users who call every task RPC, each call by one of four ways."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.accounts = world.run(*(world.new_account() for _ in range(USERS)))
        self.models = [Tasks(account.id) for account in self.accounts]
        # The ids of all tasks that each user has created.
        self.made: list[list[str]] = [[] for _ in range(USERS)]
        # Resume tokens of lists, each with its user and the number of changes at that time.
        self.places: list[tuple[str, int, int]] = []

    @initialize(each=st.lists(new_fields, min_size=2, max_size=4))
    def begin(self, each: Sequence[Mapping[str, Any]]) -> None:
        """Creates some tasks."""
        for who in range(USERS):
            self._write(who, 0, Write("BatchCreateTasks", [Item(fields=fields) for fields in each]))

    @rule(who=users, way=ways, fields=mostly_new_fields, key=keys, if_match=st.sampled_from(["", "", "", "", "*"]))
    def create(self, who: int, way: int, fields: Mapping[str, Any], key: str, if_match: str) -> None:
        """CreateTask."""
        self._write(who, way, Write("CreateTask", [Item(fields=fields)], if_match, key))

    @rule(who=users, way=ways, pick=picks, fields=mostly_new_fields, mask=masks, etag=etags, if_match=if_matches, key=keys)
    def update(self, who: int, way: int, pick: int, fields: Mapping[str, Any], mask: tuple[str, ...], etag: str, if_match: str, key: str) -> None:
        """UpdateTask."""
        self._write(who, way, self._single("UpdateTask", who, Item(self._id(who, pick), fields, mask, etag), if_match, key))

    @rule(who=users, way=ways, pick=picks, fields=mostly_new_fields, etag=etags, if_match=if_matches, key=keys)
    def replace(self, who: int, way: int, pick: int, fields: Mapping[str, Any], etag: str, if_match: str, key: str) -> None:
        """ReplaceTask."""
        self._write(who, way, self._single("ReplaceTask", who, Item(self._id(who, pick), fields, (), etag), if_match, key))

    @rule(who=users, way=ways, pick=picks, etag=etags, if_match=if_matches, key=keys)
    def delete(self, who: int, way: int, pick: int, etag: str, if_match: str, key: str) -> None:
        """DeleteTask."""
        self._write(who, way, self._single("DeleteTask", who, Item(self._id(who, pick), etag=etag), if_match, key))

    @rule(who=users, way=ways, pick=picks, etag=etags, if_match=if_matches, key=keys)
    def undelete(self, who: int, way: int, pick: int, etag: str, if_match: str, key: str) -> None:
        """UndeleteTask, usually with a task in the bin."""
        binned = list(self.models[who].bin)
        task_id = binned[pick % len(binned)] if binned and pick > 0 else self._id(who, pick)
        self._write(who, way, self._single("UndeleteTask", who, Item(task_id, etag=etag), if_match, key))

    @rule(who=users, pick=picks, there=ways, back=ways, key=keys)
    def bin_and_bring_back(self, who: int, pick: int, there: int, back: int, key: str) -> None:
        """DeleteTask and UndeleteTask of one task, a sequence that random choice seldom produces."""
        self._write(who, there, Write("DeleteTask", [Item(self._id(who, pick))]))
        self._write(who, back, Write("UndeleteTask", [Item(self._id(who, pick))], "", key))

    @rule(who=users, way=ways, each=st.lists(new_fields, min_size=1, max_size=4) | st.lists(any_fields, min_size=1, max_size=2), key=keys)
    def create_several(self, who: int, way: int, each: Sequence[Mapping[str, Any]], key: str) -> None:
        """BatchCreateTasks."""
        self._write(who, way, Write("BatchCreateTasks", [Item(fields=fields) for fields in each], "", key))

    @rule(who=users, way=ways, each=st.lists(st.tuples(picks, mostly_new_fields, masks, etags), min_size=1, max_size=4), key=keys)
    def update_several(self, who: int, way: int, each: Sequence[tuple[int, Mapping[str, Any], tuple[str, ...], str]], key: str) -> None:
        """BatchUpdateTasks."""
        items = [Item(self._id(who, pick), fields, mask, self._etag(who, self._id(who, pick), etag)) for pick, fields, mask, etag in each]
        self._write(who, way, Write("BatchUpdateTasks", items, "", key))

    @rule(who=users, way=ways, each=st.lists(st.tuples(picks, etags), min_size=1, max_size=3), key=keys)
    def delete_several(self, who: int, way: int, each: Sequence[tuple[int, str]], key: str) -> None:
        """BatchDeleteTasks."""
        items = [Item(self._id(who, pick), etag=self._etag(who, self._id(who, pick), etag)) for pick, etag in each]
        self._write(who, way, Write("BatchDeleteTasks", items, "", key))

    @rule(who=users, way=ways, pick=st.integers(0, 10))
    def repeat(self, who: int, way: int, pick: int) -> None:
        """Repeats an earlier call with its idempotency key, by any way."""
        kept = [write for write, _ in self.models[who].kept.values()]
        if kept:
            self._write(who, way, kept[pick % len(kept)])

    @rule(who=users, pick=picks, each=st.lists(titles, min_size=2, max_size=4), etag=st.sampled_from(["", "now"]))
    def race(self, who: int, pick: int, each: Sequence[str], etag: str) -> None:
        """UpdateTask by several ways concurrently. The versions in the answers give the order of the updates."""
        task_id = self._id(who, pick)
        self._write_at_once(
            who, [(way, self._single("UpdateTask", who, Item(task_id, {"title": title}, (), etag))) for way, title in enumerate(each)]
        )

    @rule(who=users, fields=new_fields, number=st.integers(2, 4))
    def race_under_a_key(self, who: int, fields: Mapping[str, Any], number: int) -> None:
        """CreateTask with one key, by several ways concurrently. The system creates one task."""
        one = Write("CreateTask", [Item(fields=fields)], "", f"race {len(self.made[who])}")
        self._write_at_once(who, [(way, one) for way in range(number)])

    @rule(who=users, way=ways, pick=picks)
    def get(self, who: int, way: int, pick: int) -> None:
        """GetTask."""
        self._read_as_it_is(who, [way], self._id(who, pick))

    @rule(who=users, way=ways, each=st.lists(picks, min_size=1, max_size=4))
    def get_several(self, who: int, way: int, each: Sequence[int]) -> None:
        """BatchGetTasks."""
        ids = [self._id(who, pick) for pick in each]
        (answer,) = self.world.run(read(self.world.ways[way], self.accounts[who], "BatchGetTasks", {"ids": ids}))
        _same(answer, _outcome(lambda: self.models[who].get(ids, is_batch=True)))

    @rule(who=users, query=queries, size=st.integers(1, 5), skip=st.integers(0, 3), with_total=st.booleans())
    def list(self, who: int, query: Query, size: int, skip: int, with_total: bool) -> None:  # noqa: FBT001
        """ListTasks, each page by a different way."""
        self._list(who, query, size, skip, with_total=with_total)

    def teardown(self) -> None:
        """Compares all tasks and the change log at the end."""
        for who, model in enumerate(self.models):
            self._list(who, Query(show_deleted=True), 100, 0, with_total=True)
            counter, counted, rows = self.world.run(*(self.world.database.fetch(sql, UUID(model.user_id)) for sql in (COUNTER, COUNTED, LOG)))
            logged = [(row["kind"], str(row["task_id"]), row["version"]) for row in rows]
            _same(logged, model.log)
            _same([row["seq"] for row in rows], [*range(1, len(rows) + 1)])
            _same(sum(row["last_seq"] for row in counter), len(rows))
            _same([row["counted"] for row in counter] or [[0, 0, 0]], [row["counted"] for row in counted])
        for token, who, place in self.places[:4]:
            log = self.models[who].log[place:]
            _same(self.world.run(changes(self.world.straight, self.accounts[who], token, len(log))), [log])

    def _write(self, who: int, way: int, one: Write) -> None:
        self._write_at_once(who, [(way, one)])

    def _write_at_once(self, who: int, writes: Sequence[tuple[int, Write]]) -> None:
        """Makes the calls to the system concurrently and to the model. The answers must be equal, and so must later reads from either replica."""
        answers = self.world.run(*(write(self.world.ways[way], self.accounts[who], one) for way, one in writes))
        for (_, one), answer in sorted(zip(writes, answers, strict=True), key=lambda pair: _place(pair[1])):
            told = answer.tasks if isinstance(answer, Done) else []
            _same(answer, _outcome(lambda: self.models[who].write(one, told)))  # noqa: B023 - the lambda is called immediately
            self.made[who] += [task["id"] for task in told if task["id"] not in self.made[who]]
        made = [task["id"] for answer in answers if isinstance(answer, Done) for task in answer.tasks]
        for task_id in {item.id: None for _, one in writes for item in one.items if item.id} | dict.fromkeys(made):
            self._read_as_it_is(who, [0, 1], task_id)

    def _read_as_it_is(self, who: int, ways: Sequence[int], task_id: str) -> None:
        answers = self.world.run(*(read(self.world.ways[way], self.accounts[who], "GetTask", {"id": task_id}) for way in ways))
        for answer in answers:
            _same(answer, _outcome(lambda: self.models[who].get([task_id])))

    def _list(self, who: int, query: Query, size: int, skip: int, *, with_total: bool) -> None:
        whole = self.models[who].list(query)
        expected = whole[skip:]
        values = {"page_size": size, "status": query.status or "STATUS_UNSPECIFIED", "priority": query.priority, "filter": query.filter}
        values |= {"show_deleted": query.show_deleted, "include_total_size": with_total}
        values["order_by"] = ", ".join(f"{name} desc" if descending else name for name, descending in query.order)
        token = ""
        for way in itertools.cycle(self.world.ways):
            # `skip` counts from the start of the page that the token names.
            asked = {**values, "page_token": token, "skip": 0 if token else skip}
            ((tasks, token, total, resume_token),) = self.world.run(page(way, self.accounts[who], asked))
            _same([_without_deletion(task) for task in tasks], expected[:size])
            _same(total, len(whole) if with_total else None)
            self.places.append((resume_token, who, len(self.models[who].log)))
            expected = expected[size:]
            _same(bool(token), bool(expected))
            if not token:
                return

    def _single(self, rpc: str, who: int, item: Item, if_match: str = "", key: str = "") -> Write:
        etag, header = self._etag(who, item.id, item.etag), self._etag(who, item.id, if_match)
        return Write(rpc, [Item(item.id, item.fields, item.mask, etag)], header, key)

    def _id(self, who: int, pick: int) -> str:
        if pick == NOBODY:
            return NOBODYS
        if pick == ANOTHER:
            return self.made[(who + 1) % USERS][-1]
        return self.made[who][-1 - pick % len(self.made[who])]

    def _etag(self, who: int, task_id: str, word: str) -> str:
        model = self.models[who]
        task: Task | None = model.there.get(task_id) or model.bin.get(task_id)
        version = version_of(task) if task else 1
        etag = etag_of(version)
        forms = {"now": etag, "before": etag_of(version - 1), "after": etag_of(version + 1), "weak": f"W/{etag}", "bare": f"{version}"}
        return {**forms, "padded": f'"0{version}"', "one of": f'"99", {etag}', "*": "*"}.get(word, "")


def _outcome(act: Callable[[], Done | Sequence[Task]]) -> Done | Refused:
    """Returns the model's outcome."""
    try:
        outcome = act()
    except Refused as refused:
        return refused
    return outcome if isinstance(outcome, Done) else Done(outcome)


def _place(answer: Done | Refused) -> tuple[int, int]:
    """Returns the position in the order of concurrent calls. Rejected and replayed calls come last, because they saw the others' result."""
    if isinstance(answer, Refused) or answer.replayed:
        return 1, 0
    return 0, version_of(answer.tasks[0]) if answer.tasks else 0


def _without_deletion(task: Task) -> Task:
    """Returns the task as the model has it, without the time of deletion. That time must equal the time of the last change."""
    if "deleted_at" not in task:
        return task
    assert task["deleted_at"] == task["updated_at"] >= task["created_at"], task
    return {name: value for name, value in task.items() if name not in {"deleted_at", "updated_at"}}


def _same(answer: object, expected: object) -> None:
    assert answer == expected, f"the system answered\n{answer}\nand the model\n{expected}"
