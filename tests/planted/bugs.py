"""The bugs: where each is planted, and the tests that must find it. Kept from rotting by test_bugs.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

APP: Final = "task_service/app.py"
CACHE: Final = "task_service/cache.py"
HANDLER: Final = "task_service/handler.py"
MESSAGES: Final = "task_service/messages.py"
REPOSITORY: Final = "task_service/repository.py"
RETRY_METADATA: Final = "servicekit/retry_metadata.py"
SERVER: Final = "servicekit/server.py"
DOMAIN: Final = "task_service/domain.py"
GATEWAY: Final = "gateway/envoy.yaml.j2"
PIPELINE: Final = "servicekit/pipeline.py"
SERVICE: Final = "task_service/service.py"
WATCHING: Final = "task_service/watching.py"
AFTER_RESTORE: Final = "helm/task-manager/charts/backup/files/after-restore.sql"
BACKUP: Final = "helm/task-manager/charts/backup/files/backup.sh"
WRITES: Final = "task_service/migrations/0004_writes.sql"
LINEARIZABILITY: Final = ("tests/e2e/test_linearizability.py",)
MODEL: Final = ("tests/model/test_model.py",)

IDEMPOTENCY: Final = "tests/e2e/test_idempotency.py"
LOST_ANSWERS: Final = "tests/e2e/test_lost_answers.py"
SAFE_WRITES: Final = "tests/contract/test_safe_writes.py"


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
        "an idempotency key that is everybody's",
        WRITES,
        "         WHERE user_id = p_user AND key = p_key AND created_at >",
        "         WHERE key = p_key AND created_at >",
        (IDEMPOTENCY, "-k", "another_users_key"),
    ),
    Bug(
        "an idempotency key that is good for ever",
        WRITES,
        "AND key = p_key AND created_at > clock_timestamp() - interval '24 hours';",
        "AND key = p_key;",
        (IDEMPOTENCY, "-k", "after_a_day"),
    ),
    Bug(
        "a request's hash without If-Match",
        RETRY_METADATA,
        'said = (request.DESCRIPTOR.full_name, call.metadata.get(IF_MATCH, ""), "")',
        'said = (request.DESCRIPTOR.full_name, "", "")',
        (IDEMPOTENCY, "-k", "another_if_match"),
    ),
    Bug(
        "a request's hash without the method",
        RETRY_METADATA,
        'said = (request.DESCRIPTOR.full_name, call.metadata.get(IF_MATCH, ""), "")',
        'said = ("", call.metadata.get(IF_MATCH, ""), "")',
        (IDEMPOTENCY, "-k", "same_bytes"),
    ),
    Bug("a replay that does not say that it is one", HANDLER, "    if written.replayed:", "    if not written:", (IDEMPOTENCY, "-k", "as_at_first")),
    Bug(
        "a refusal that uses up its key",
        REPOSITORY,
        """            raise _refusal(error) from error
""",
        """            if key is not None:
                keep = "INSERT INTO task.idempotency_keys VALUES ($1, $2, $3, '[]', now())"
                await self._database.fetchrow(keep, actor.user_id, key, request_hash)
            raise _refusal(error) from error
""",
        (IDEMPOTENCY, "-k", "refusal"),
    ),
    Bug(
        "an answer that is kept after the write and not with it",
        REPOSITORY,
        """            rows = await self._database.fetch(WRITE, *args, MAX_ANSWER_BYTES, unfenced)
""",
        """            find = "SELECT FROM task.idempotency_keys WHERE user_id = $1 AND key = $2"
            kept = key is None or await self._database.fetchrow(find, actor.user_id, key) is not None
            rows = await self._database.fetch(WRITE, *(args if kept else (*args[:5], None, None)), MAX_ANSWER_BYTES, unfenced)
            if not kept:
                answer = "SELECT $1, $2, $3, coalesce(jsonb_agg(to_jsonb(t)), '[]'), now() FROM task.tasks AS t WHERE user_id = $1 AND id = ANY ($4)"
                keep = f"INSERT INTO task.idempotency_keys {answer}"
                await self._database.fetchrow(keep, actor.user_id, key, request_hash, [row[2] for row in rows])
""",
        (LOST_ANSWERS, "-k", "postgres and after"),
    ),
    Bug(
        "etags that nobody looks at in batches",
        HANDLER,
        "    return (given,) if given else None",
        "    return None",
        (SAFE_WRITES, "-k", "refused_one"),
    ),
    Bug(
        "a weak etag that matches",
        RETRY_METADATA,
        "    tags = tuple(re.findall(_TAG, header))",
        '    tags = tuple(tag.removeprefix("W/") for tag in re.findall(_TAG, header))',
        (SAFE_WRITES, "-k", "another_etag"),
    ),
    Bug(
        "a batch that counts its refusals from 1",
        REPOSITORY,
        "    return refused(int(index), etag",
        "    return refused(int(index) + 1, etag",
        (SAFE_WRITES, "-k", "refused_one"),
    ),
    Bug(
        "a batch that counts its invalid fields from 1",
        MESSAGES,
        "in enumerate(requests):",
        "in enumerate(requests, 1):",
        (SAFE_WRITES, "-k", "refused_one"),
    ),
    Bug(
        "a batch that leaves done what it did before a refusal",
        SERVICE,
        """        written = await self._repository.write(actor, operations, idempotency)
""",
        """        tasks: list[Task] = []
        for index, operation in enumerate(operations):
            try:
                tasks += (await self._repository.write(actor, [operation])).tasks
            except Exception as error:
                error.index = index
                raise
        written = Written(tasks)
""",
        (SAFE_WRITES, "-k", "refused_one"),
    ),
    Bug(
        "a batch that finds what is in the bin",
        REPOSITORY,
        "WHERE user_id = $1 AND id = ANY ($2) AND deleted_at IS NULL",
        "WHERE user_id = $1 AND id = ANY ($2)",
        (SAFE_WRITES, "-k", "in_the_bin"),
    ),
    Bug(
        "an answer that may be no larger than a request",
        SERVER,
        '("grpc.max_send_message_length", MAX_ANSWER_BYTES)',
        '("grpc.max_send_message_length", MAX_REQUEST_BYTES)',
        (SAFE_WRITES, "-k", "largest_batch"),
    ),
    Bug(
        "a resume token that is good for anybody",
        SERVICE,
        '    return ["WatchTasks", str(user_id)]',
        '    return ["WatchTasks", "" and str(user_id)]',
        ("tests/contract/test_foreign_objects.py", "-k", "WatchTasks"),
    ),
    Bug(
        "a replica that makes good only what it wrote itself",
        CACHE,
        "self._suspects.add(*(key_of(user_id, task_id) for user_id, task_id in unfenced))",
        "del unfenced",
        ("tests/task_service/test_cache.py", "-k", "that_died"),
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
        "a list whose resume token is of another moment than its page",
        REPOSITORY,
        """        return Listed(tasks, Place(str(rows[0]["epoch"]), rows[0]["last_seq"]),""",
        """        now = await self._database.fetchrow("SELECT last_seq FROM task.counters WHERE user_id = $1", query.user_id)
        return Listed(tasks, Place(str(rows[0]["epoch"]), now["last_seq"] if now else 0),""",
        ("tests/task_service/test_sync.py",),
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
    Bug("a list whose ties are in any order", "task_service/list_statement.py", 'Key("id", last)]', 'Key("id", not last)]', MODEL),
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
        "        redis.before_close(self._make_good)\n",
        "",
        ("tests/e2e/test_cut_off.py",),
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
        "user.moved(last_seq, self._by_poll)",
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
        "async with _AtMost(self.slow_reader_seconds, SlowReader):",
        "async with _AtMost(3600, SlowReader):",
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
    Bug(
        "a restore after which refresh tokens of before are good",
        AFTER_RESTORE,
        "UPDATE auth.sessions SET ended_at = clock_timestamp() WHERE ended_at IS NULL;",
        "",
        ("tests/deploy/test_backup.py", "-k", "lost"),
    ),
    Bug(
        "a restore after which access tokens of before are good",
        AFTER_RESTORE,
        "DELETE FROM auth.signing_keys;",
        "",
        ("tests/deploy/test_backup.py", "-k", "lost"),
    ),
    Bug(
        "a backup that nobody has read back",
        BACKUP,
        'pg_restore --file=/dev/null "$draft" || fail "the dump cannot be read back"',
        "",
        ("tests/deploy/test_backup.py", "-k", "looks_good"),
    ),
)
