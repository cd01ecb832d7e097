"""The bugs: where each is planted, and the tests that must find it. Kept from rotting by test_bugs.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

APP: Final = "task_service/app.py"
CACHE: Final = "task_service/cache.py"
GATEWAY: Final = "gateway/envoy.yaml.j2"
PIPELINE: Final = "servicekit/pipeline.py"
SERVICE: Final = "task_service/service.py"
WATCHING: Final = "task_service/watching.py"
WRITES: Final = "task_service/migrations/0004_writes.sql"


@dataclass(frozen=True, slots=True)
class Bug:
    """In `file`, what stands there once as `old` becomes `new`; `tests` (arguments for pytest) must fail then."""

    name: str
    file: str
    old: str
    new: str
    tests: Sequence[str]


BUGS: Final = (
    Bug(
        "a fill that counts although its lease is gone",
        CACHE,
        "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end",
        "redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])",
        ("tests/task_service/test_cache.py",),
    ),
    Bug(
        "an answer of then that is kept as a value of now",
        CACHE,
        "task = None if written.replayed or len(keys) > 1",
        "task = None if len(keys) > 1",
        ("tests/task_service/test_writes.py",),
    ),
    Bug(
        "an idempotency key that is read before the counter's lock",
        WRITES,
        """    v_count   integer := jsonb_array_length(p_operations);
    v_seq     bigint := task.take_seqs(p_user, v_count);
    v_changed integer := v_count;
    v_kept    task.idempotency_keys;
    v_tasks   task.tasks[];
BEGIN
    IF p_key IS NOT NULL THEN
        SELECT * INTO v_kept FROM task.idempotency_keys
         WHERE user_id = p_user AND key = p_key AND created_at > clock_timestamp() - interval '24 hours';
""",
        """    v_count   integer := jsonb_array_length(p_operations);
    v_seq     bigint;
    v_changed integer := v_count;
    v_kept    task.idempotency_keys;
    v_tasks   task.tasks[];
BEGIN
    SELECT * INTO v_kept FROM task.idempotency_keys
     WHERE user_id = p_user AND key = p_key AND created_at > clock_timestamp() - interval '24 hours';
    v_seq := task.take_seqs(p_user, v_count);
    IF p_key IS NOT NULL THEN
        PERFORM WHERE v_kept.key IS NOT NULL;
""",
        ("tests/task_service/test_writes.py", "-k", "two_at_once"),
    ),
    Bug(
        "an etag that nobody looks at",
        WRITES,
        "IF v_task.version <> ALL (p_versions) THEN",
        "IF false THEN",
        ("tests/task_service/test_writes.py", "-k", "etag"),
    ),
    Bug(
        "a stream that takes a gap for the next change",
        SERVICE,
        "or not is_next or (not seqs",
        "or (not seqs",
        ("tests/task_service/test_watching.py",),
    ),
    Bug(
        "a wake-up that is forgotten when it comes while a stream reads",
        SERVICE,
        "if place.seq == found.last_seq and not await watch.wait():",
        "watch._woken.clear()\n                if place.seq == found.last_seq and not await watch.wait():",
        ("tests/task_service/test_watching.py",),
    ),
    Bug(
        "a stream that outlives its session",
        WATCHING,
        "                    watch.end(error)\n\n    async def round",
        "                    del error\n\n    async def round",
        ("tests/task_service/test_watching.py",),
    ),
    Bug(
        "a stream that resumes with what was told already",
        SERVICE,
        "                return Place(epoch, seq)",
        "                return Place(epoch, max(seq - 1, 0))",
        ("tests/e2e/test_feed.py",),
    ),
    Bug(
        "a stream that resumes one change too late",
        SERVICE,
        "        _require_whole(place, found)\n        return place",
        "        _require_whole(place, found)\n        return Place(place.epoch, min(place.seq + 1, found.last_seq))",
        ("tests/e2e/test_feed.py",),
    ),
    Bug(
        "a first checkpoint ahead of what was told",
        SERVICE,
        "            yield self._event(identity.user_id, None, place)\n            while True:",
        "            now = (await self._log.list(identity.user_id, None, 1)).last_seq\n"
        "            yield self._event(identity.user_id, None, Place(place.epoch, now))\n            while True:",
        ("tests/e2e/test_feed.py",),
    ),
    Bug(
        "numbers that the changes of all users share",
        WRITES,
        "DO UPDATE SET last_seq = c.last_seq + p_count WHERE",
        "DO UPDATE SET last_seq = (SELECT max(last_seq) FROM task.counters) + p_count WHERE",
        ("tests/e2e/test_feed.py",),
    ),
    Bug(
        "polling that is switched off",
        WATCHING,
        "user.moved(last_seq)",
        "del last_seq",
        ("tests/e2e/test_watching_outages.py", "-k", "without_valkey"),
    ),
    Bug(
        "a change that is taken for told since another stream was told",
        WATCHING,
        "return seqs.pop() if len(seqs) == 1 else UNKNOWN",
        "return max(seqs)",
        ("tests/task_service/test_watching.py", "-k", "another_stream"),
    ),
    Bug(
        "streams that nobody checks for their sessions",
        APP,
        "wakeups, revocations.check, metrics)",
        "wakeups, lambda _: None, metrics)",
        ("tests/e2e/test_watching.py", "-k", "ends_with_its_session"),
    ),
    Bug(
        "a stream that ends only when it has told all",
        SERVICE,
        "                    watch.check()\n",
        "",
        ("tests/task_service/test_watching.py", "-k", "much_to_tell"),
    ),
    Bug(
        "a stream that does not end when the service stops",
        WATCHING,
        "watch.end(ServiceStopping())",
        "del watch",
        ("tests/e2e/test_watching_outages.py", "-k", "replica_that_stops"),
    ),
    Bug(
        "a reader for whom all that it does not read is kept",
        PIPELINE,
        "async with asyncio.timeout(self.slow_reader_seconds) as timeout:",
        "async with asyncio.timeout(None) as timeout:",
        ("tests/e2e/test_watching_outages.py", "-k", "does_not_read"),
    ),
    Bug(
        "a gateway that holds for some streams all that it can hold for all",
        GATEWAY,
        """            initial_stream_window_size: 262144
            # Room for all of them: else some whose clients do not read would hold up all others to this replica.
            initial_connection_window_size: 268435456
""",
        """            initial_stream_window_size: 1048576
            initial_connection_window_size: 8388608
""",
        ("tests/gateway/test_streams.py", "-k", "do_not_read"),
    ),
)
