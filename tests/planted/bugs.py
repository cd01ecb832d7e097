"""The bugs: where each is planted, and the tests that must find it. Kept from rotting by test_bugs.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

CACHE: Final = "task_service/cache.py"
REPOSITORY: Final = "task_service/repository.py"
SERVICE: Final = "task_service/service.py"
WATCHING: Final = "task_service/watching.py"
AFTER_RESTORE: Final = "helm/task-manager/charts/backup/files/after-restore.sql"
BACKUP: Final = "helm/task-manager/charts/backup/files/backup.sh"
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
        "a list whose resume token is of another moment than its page",
        REPOSITORY,
        """        return Listed(tasks, Place(str(rows[0]["epoch"]), rows[0]["last_seq"]),""",
        """        now = await self._database.fetchrow("SELECT last_seq FROM task.counters WHERE user_id = $1", query.user_id)
        return Listed(tasks, Place(str(rows[0]["epoch"]), now["last_seq"] if now else 0),""",
        ("tests/task_service/test_sync.py",),
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
