"""Bugs of the cache, and of reads that run concurrently with writes."""

from typing import Final

from tests.planted.bug import Bug

CACHE: Final = "task_service/tasks/cache.py"
REPOSITORY: Final = "task_service/tasks/repository.py"
WRITES: Final = "task_service/migrations/0004_writes.sql"
LINEARIZABILITY: Final = ("tests/e2e/test_linearizability.py",)

CACHE_BUGS: Final = (
    Bug(
        "a cache fill does not check its lease",
        CACHE,
        "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end",
        "redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])",
        ("tests/task_service/tasks/test_cache.py",),
    ),
    Bug(
        "a replica deletes only the cache keys of its own unfenced writes",
        CACHE,
        "self._suspects.add(*(key_of(user_id, task_id) for user_id, task_id in unfenced))",
        "del unfenced",
        ("tests/task_service/tasks/test_cache.py", "-k", "that_died"),
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
        CACHE,
        "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end",
        "redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])",
        (*LINEARIZABILITY, "-k", "no_reader"),
    ),
    Bug(
        "a write sets no fence",
        CACHE,
        "        fence = FENCE + secrets.token_bytes(12)\n        try:",
        "        fence = FENCE + secrets.token_bytes(12)\n        return NO_FENCE\n        try:",
        (*LINEARIZABILITY, "-k", "that_died"),
    ),
    Bug(
        "sequence numbers are assigned without the counter's lock",
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
        "cached values are used before Redis has settled",
        "servicekit/stores/redis.py",
        "return not self._open and time.monotonic() >= self._settled_at",
        "return not self._open",
        (*LINEARIZABILITY, "-k", "has_redis_last"),
    ),
    Bug(
        "the loss of an idle Redis connection is not noticed",
        "servicekit/stores/redis_reads.py",
        "            self.end(error)\n            self._on_lost(error)\n",
        "            self.end(error)\n",
        ("tests/servicekit/stores/test_redis.py", "-k", "nobody_uses"),
    ),
    Bug(
        "a replica uses the cache at its start without a probe of Redis",
        "servicekit/stores/redis.py",
        "        self._open = True\n        self._probing = asyncio.create_task(self._probe(after_seconds=0))\n",
        "",
        (*LINEARIZABILITY, "-k", "that_starts"),
    ),
    Bug(
        "cache keys of writes without Redis are not deleted when Redis is back",
        CACHE,
        "        redis.before_close(self._make_good)\n",
        "",
        ("tests/e2e/test_cut_off.py",),
    ),
)
