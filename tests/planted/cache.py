"""Bugs of the cache, and of reads that run concurrently with writes. Each guard of the cache protocol is the place of one of them."""

from typing import Final

from tests.planted.bug import Bug

CACHE: Final = "task_service/tasks/cache.py"
STATE: Final = "task_service/cache/service.py"
VALUES: Final = "task_service/cache/values.py"
STATE_ROW: Final = "task_service/migrations/0005_cache_state.sql"
SESSION: Final = "servicekit/stores/redis_session.py"
REPOSITORY: Final = "task_service/tasks/repository.py"
WRITES: Final = "task_service/migrations/0006_write_cost.sql"
TASKS_TESTS: Final = ("tests/task_service/tasks/cached/test_cache.py", "tests/task_service/tasks/cached/test_cache_state.py")
STATE_TESTS: Final = ("tests/task_service/cache/test_service.py",)
VALUES_TESTS: Final = ("tests/task_service/cache/test_values.py",)
ROW_TESTS: Final = ("tests/task_service/cache/test_repository.py",)
SESSION_TESTS: Final = ("tests/servicekit/stores/test_redis_session.py",)
REDIS_TESTS: Final = ("tests/servicekit/stores/test_redis.py",)
LINEARIZABILITY: Final = ("tests/e2e/test_linearizability.py",)

CACHE_BUGS: Final = (
    Bug(
        "a read relies on knowledge that has expired",
        STATE,
        "if state is None or self._clock() - self._asked_at >= VALID_SECONDS or (",
        "if state is None or (",
        TASKS_TESTS,
    ),
    Bug(
        "knowledge counts from the answer",
        STATE,
        "self._latest, self._asked_at = state, asked_at",
        "self._latest, self._asked_at = state, self._clock()",
        STATE_TESTS,
    ),
    Bug("a read relies on ARMED", CACHE, "if state is None or state.mode is not Mode.ON:", "if state is None or not state.fenced:", TASKS_TESTS),
    Bug(
        "a read takes a value from another Redis process",
        VALUES,
        """f"{_hash(state.generation)}:{user_id}:{task_id}", process=state.process)""",
        """f"{_hash(state.generation)}:{user_id}:{task_id}")""",
        VALUES_TESTS,
    ),
    Bug(
        "a write sets its fence in another Redis process",
        VALUES,
        "await self._fence(keys, [token, *fields], process=state.process)",
        "await self._fence(keys, [token, *fields])",
        VALUES_TESTS,
    ),
    Bug("all generations have the same keys", VALUES, """return f"task:3:{generation}\"""", """return f"task:3:{UUID(int=0)}\"""", VALUES_TESTS),
    Bug(
        "a fence is set although its generation has lost its keys",
        VALUES,
        "if redis.call('HEXISTS', KEYS[1], '{MARKER}') == 0 then return 0 end\nfor i",
        "for i",
        VALUES_TESTS,
    ),
    Bug(
        "a lease is given although its generation has lost its keys",
        VALUES,
        "if redis.call('HEXISTS', KEYS[1], '{MARKER}') == 0 or redis.call('HEXISTS', KEYS[1], ARGV[3]) == 1 then",
        "if redis.call('HEXISTS', KEYS[1], ARGV[3]) == 1 then",
        TASKS_TESTS,
    ),
    Bug(
        "a lease is given for a fenced task",
        VALUES,
        "if redis.call('HEXISTS', KEYS[1], '{MARKER}') == 0 or redis.call('HEXISTS', KEYS[1], ARGV[3]) == 1 then",
        "if redis.call('HEXISTS', KEYS[1], '{MARKER}') == 0 then",
        VALUES_TESTS,
    ),
    Bug(
        "a cache fill does not check its lease",
        VALUES,
        "if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3]) end",
        "redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])",
        TASKS_TESTS,
    ),
    Bug("a fence leaves the old value", VALUES, "  redis.call('DEL', KEYS[i])\n", "", VALUES_TESTS),
    Bug("a write that shared its fence stores its value", VALUES, "if rest == 'o' and value ~= '' then", "if value ~= '' then", VALUES_TESTS),
    Bug(
        "a write whose outcome is unknown removes its fence",
        "servicekit/stores/postgres.py",
        """        with contextlib.suppress(Exception):
            if not at_rest:
""",
        """        on_failed()
        with contextlib.suppress(Exception):
            if not at_rest:
""",
        ("tests/servicekit/stores/test_postgres_outages.py", "-k", "reported"),
    ),
    Bug(
        "a lost connection to PostgreSQL counts as the end of its statement",
        "servicekit/stores/postgres.py",
        " and not isinstance(error, asyncpg.PostgresConnectionError)",
        "",
        ("tests/servicekit/stores/test_postgres_outages.py", "-k", "reported"),
    ),
    Bug(
        "a service goes on asking Citus for generic plans",
        "servicekit/stores/postgres.py",
        "self._options = replace(self._options, generic_plans=False)",
        "pass",
        ("tests/servicekit/stores/test_postgres.py", "-k", "generic_plan"),
    ),
    Bug(
        "a read relies on a generation whose keys the replica has not seen",
        STATE,
        " or (state.fenced and state.generation != self._seen)",
        "",
        STATE_TESTS,
    ),
    Bug("a master that was a replica meanwhile is still relied on", VALUES, " or replication ~= ARGV[2]", "", VALUES_TESTS),
    Bug(
        "a write without a fence does not wait after OFF",
        STATE,
        "return max(0.0, self._off_since + WAIT_SECONDS - self._clock())",
        "return 0.0",
        STATE_TESTS,
    ),
    Bug("PostgreSQL does not compare the state of a write", WRITES, "    IF p_generation IS NOT NULL THEN\n", "    IF false THEN\n", TASKS_TESTS),
    Bug("ARMED does not wait after OFF", STATE, "            if self._seconds_to_wait() == 0.0:\n", "            if True:\n", STATE_TESTS),
    Bug(
        "ON does not wait for the writes before ARMED",
        STATE_ROW,
        "AND (armed_before IS NULL OR pg_snapshot_xmin(pg_current_snapshot()) > armed_before)",
        "",
        ROW_TESTS,
    ),
    Bug(
        "ON waits only for transactions that are older than that of ARMED",
        STATE_ROW,
        "process = p_process, replication = p_replication, armed_before = NULL",
        "process = p_process, replication = p_replication, armed_before = pg_current_xact_id()",
        ROW_TESTS,
    ),
    Bug(
        "connections of one session lead to different processes",
        SESSION,
        "        if process != self.process:\n",
        "        if False:\n",
        SESSION_TESTS,
    ),
    Bug("a replica of Redis answers reads", SESSION, r"$5\r\nGETEX", r"$3\r\nGET", REDIS_TESTS),
    Bug(
        "the loss of an idle Redis connection is not noticed",
        SESSION,
        """        self._lose(exc or RedisConnectionError("Redis has closed the connection"))""",
        """        del exc""",
        (*REDIS_TESTS, "-k", "nobody_uses"),
    ),
    Bug("a value of another task or release is answered", CACHE, "if held.startswith(beginning):", "if held.startswith(VALUE[:-1]):", TASKS_TESTS),
    Bug(
        "a caller that leaves after the commit leaves its fence",
        CACHE,
        "        finishing = asyncio.create_task(self._finish_alone(fence))",
        "        finishing = asyncio.create_task(asyncio.sleep(0))",
        TASKS_TESTS,
    ),
    Bug(
        "a list's resume token comes from another snapshot than its page",
        REPOSITORY,
        """        return Listed(tasks, Place(str(rows[0]["epoch"]), rows[0]["last_seq"]),""",
        """        now = await self._database.fetchrow("SELECT last_seq FROM task.counters WHERE user_id = $1", query.user_id)
        return Listed(tasks, Place(str(rows[0]["epoch"]), now["last_seq"] if now else 0),""",
        ("tests/task_service/feed/test_sync.py",),
    ),
    Bug(
        "a late cache fill does not check its lease",
        VALUES,
        "if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3]) end",
        "redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])",
        (*LINEARIZABILITY, "-k", "no_reader"),
    ),
    Bug(
        "a write sets no fence",
        CACHE,
        "begin_write(partial(self._fence, user_id=user_id, task_ids=task_ids))",
        """begin_write(lambda state: asyncio.sleep(0, Fence(state, user_id, task_ids, new_token())))""",
        (*LINEARIZABILITY, "-k", "that_died"),
    ),
    Bug(
        "sequence numbers are assigned without the counter's lock",
        WRITES,
        """    PERFORM pg_advisory_xact_lock(uuid_hash_extended(p_user, 0));
    UPDATE task.counters SET last_seq = last_seq + p_count WHERE user_id = p_user AND closed_at IS NULL RETURNING last_seq INTO v_last;
    IF NOT FOUND THEN
        INSERT INTO task.counters AS c (user_id, last_seq) VALUES (p_user, p_count)
        ON CONFLICT (user_id) DO UPDATE SET last_seq = c.last_seq + p_count WHERE c.closed_at IS NULL
        RETURNING last_seq INTO v_last;
    END IF;
""",
        """    INSERT INTO task.counters AS c (user_id, last_seq) VALUES (p_user, 0) ON CONFLICT (user_id) DO NOTHING;
    SELECT last_seq + p_count INTO v_last FROM task.counters WHERE user_id = p_user AND closed_at IS NULL;
    PERFORM pg_sleep(0.001);
    UPDATE task.counters SET last_seq = v_last WHERE user_id = p_user;
""",
        (*LINEARIZABILITY, "-k", "no_reader"),
    ),
    Bug(
        "a replica that is cut off from Redis writes at once",
        STATE,
        "return max(0.0, self._off_since + WAIT_SECONDS - self._clock())",
        "return 0.0",
        ("tests/e2e/test_cut_off.py",),
    ),
    Bug(
        "after a failover of PostgreSQL a replica relies on the state from before",
        "task_service/cache/repository.py",
        'if row["server"] != row["current_server"]:',
        "if False:",
        ROW_TESTS,
    ),
    Bug(
        "the timeline of PostgreSQL is that of its last checkpoint",
        "task_service/migrations/0012_failover.sql",
        "left(pg_walfile_name('0/1000000'), 8)",
        "(SELECT timeline_id FROM pg_control_checkpoint())",
        ("tests/e2e/test_failover.py", "-k", "lost_commits"),
    ),
)
