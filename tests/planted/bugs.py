"""The bugs: where each is planted, and the tests that must find it. Kept from rotting by test_bugs.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

CACHE: Final = "task_service/cache.py"
DOMAIN: Final = "task_service/domain.py"
SERVICE: Final = "task_service/service.py"
WATCHING: Final = "task_service/watching.py"
WRITES: Final = "task_service/migrations/0004_writes.sql"
LINEARIZABILITY: Final = ("tests/e2e/test_linearizability.py",)
MODEL: Final = ("tests/model/test_model.py",)


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
        "a value that stays in the cache when its task is deleted",
        CACHE,
        "if isinstance(operations[0], Creation):",
        "if isinstance(operations[0], Creation | Deletion):",
        MODEL,
    ),
    Bug(
        "a field that is set though the mask does not name it",
        WRITES,
        "IF 'description' = ANY (v_op.mask) THEN",
        "IF v_op.description <> '' THEN",
        MODEL,
    ),
    Bug(
        "a deletion that is left out of its batch where all should be refused",
        WRITES,
        "        PERFORM task.task_to_write(p_user, v_op.id, p_kind = 4, v_op.versions, v_op.n);\n",
        """        BEGIN
            PERFORM task.task_to_write(p_user, v_op.id, p_kind = 4, v_op.versions, v_op.n);
        EXCEPTION WHEN SQLSTATE 'TM002' THEN
            CONTINUE;
        END;
""",
        MODEL,
    ),
    Bug(
        "an undeletion that leaves the time of deletion",
        WRITES,
        "CASE WHEN p_kind = 3 THEN greatest(v_now, updated_at) END,",
        "CASE WHEN p_kind = 3 THEN greatest(v_now, updated_at) ELSE deleted_at END,",
        MODEL,
    ),
    Bug(
        "an etag that is compared too loosely",
        DOMAIN,
        "return int(etag[1:-1]) if _ETAG.fullmatch(etag) else None",
        """return int(etag.strip('W/"')) if etag.strip('W/"').isdigit() else None""",
        MODEL,
    ),
    Bug(
        "a time of completion that a deletion forgets",
        WRITES,
        "updated_at = greatest(v_now, updated_at), version = version + 1",
        "updated_at = greatest(v_now, updated_at), version = version + 1, status = 1, completed_at = NULL",
        MODEL,
    ),
    Bug("an idempotency key that is good for any request", WRITES, "IF v_kept.request_hash <> p_hash THEN", "IF false THEN", MODEL),
    Bug(
        "a list whose ties are in any order",
        "task_service/repository.py",
        'keys.append(("id", keys[-1][1]))',
        'keys.append(("id", not keys[-1][1]))',
        MODEL,
    ),
    Bug(
        "a late fill that counts although its lease is gone",
        CACHE,
        "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end",
        "redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])",
        (*LINEARIZABILITY, "-k", "no_reader"),
    ),
    Bug(
        "a write that sets no fence",
        CACHE,
        "        fence = FENCE + secrets.token_bytes(12)\n        try:",
        "        fence = FENCE + secrets.token_bytes(12)\n        return NO_FENCE\n        try:",
        (*LINEARIZABILITY, "-k", "that_died"),
    ),
    Bug(
        "numbers that are taken without the counter's lock",
        WRITES,
        """    INSERT INTO task.counters AS c (user_id, last_seq) VALUES (p_user, p_count)
    ON CONFLICT (user_id) DO UPDATE SET last_seq = c.last_seq + p_count WHERE c.closed_at IS NULL
    RETURNING last_seq INTO v_last;
""",
        """    INSERT INTO task.counters AS c (user_id, last_seq) VALUES (p_user, 0) ON CONFLICT (user_id) DO NOTHING;
    SELECT last_seq + p_count INTO v_last FROM task.counters WHERE user_id = p_user AND closed_at IS NULL;
    PERFORM pg_sleep(0.001);
    UPDATE task.counters SET last_seq = v_last WHERE user_id = p_user;
""",
        (*LINEARIZABILITY, "-k", "no_reader"),
    ),
    Bug(
        "reads that are believed before Redis has settled",
        "servicekit/redis.py",
        "return not self._open and time.monotonic() >= self._settled_at",
        "return not self._open",
        (*LINEARIZABILITY, "-k", "has_redis_last"),
    ),
    Bug(
        "a connection whose end nobody notices who waits for no answer",
        "servicekit/redis_reads.py",
        "            self.end(error)\n            self._on_lost(error)\n",
        "            self.end(error)\n",
        ("tests/servicekit/test_redis.py", "-k", "nobody_uses"),
    ),
    Bug(
        "a replica that believes Redis from its start",
        "servicekit/redis.py",
        "        self._open = True\n        self._probing = asyncio.create_task(self._probe(after_seconds=0))\n",
        "",
        (*LINEARIZABILITY, "-k", "that_starts"),
    ),
    Bug(
        "keys that were written without Redis and are not deleted when it is back",
        CACHE,
        "        redis.before_close(self._suspects.delete)\n",
        "",
        ("tests/e2e/test_cut_off.py",),
    ),
)
