"""Bugs of the change feed, its streams, backup and restore."""

from typing import Final

from tests.planted.bug import Bug

APP: Final = "task_service/app.py"
GATEWAY: Final = "gateway/envoy.yaml.j2"
PIPELINE: Final = "servicekit/rpc/pipeline.py"
SERVICE: Final = "task_service/feed/service.py"
WATCHING: Final = "task_service/feed/watching.py"
AFTER_RESTORE: Final = "helm/task-manager/charts/backup/files/after-restore.sql"
BACKUP: Final = "helm/task-manager/charts/backup/files/backup.sh"
WRITES: Final = "task_service/migrations/0006_write_cost.sql"

FEED_BUGS: Final = (
    Bug(
        "a stream reads any number of bytes of the log at once",
        "task_service/feed/repository.py",
        "WHERE bytes <= $4 OR seq = first_seq",
        "WHERE bytes <= $4 OR true",
        ("tests/task_service/feed/test_bytes.py",),
    ),
    Bug(
        "the streams of one user read at the same time",
        "task_service/feed/pace.py",
        "Turns(1, USERS_AT_ONCE",
        "Turns(100, USERS_AT_ONCE",
        ("tests/task_service/feed/test_pace.py",),
    ),
    Bug(
        "a stream whose client does not read keeps its turn",
        "task_service/feed/pace.py",
        "seconds=TURN_SECONDS)",
        "seconds=3600)",
        ("tests/task_service/feed/test_pace.py",),
    ),
    Bug(
        "a resume token is accepted from another user",
        SERVICE,
        '    return ["WatchTasks", str(user_id)]',
        '    return ["WatchTasks", "" and str(user_id)]',
        ("tests/contract/test_foreign_objects.py", "-k", "WatchTasks"),
    ),
    Bug(
        "a stream accepts a gap in the sequence numbers",
        SERVICE,
        "or not is_next or (not seqs",
        "or (not seqs",
        ("tests/task_service/feed/test_watching.py",),
    ),
    Bug(
        "a wake-up is lost if it arrives while the stream reads",
        SERVICE,
        "while place.seq == found.last_seq and not await watch.wait():",
        "watch._woken.clear()\n                while place.seq == found.last_seq and not await watch.wait():",
        ("tests/task_service/feed/test_watching.py",),
    ),
    Bug(
        "a stream stays open after its session has ended",
        WATCHING,
        "                    watch.end(error)\n\n    async def round",
        "                    del error\n\n    async def round",
        ("tests/task_service/feed/test_watching.py",),
    ),
    Bug(
        "a resumed stream repeats the last change",
        SERVICE,
        "                return Place(epoch, seq)",
        "                return Place(epoch, max(seq - 1, 0))",
        ("tests/e2e/test_feed.py",),
    ),
    Bug(
        "a resumed stream skips one change",
        SERVICE,
        "        _require_whole(place, found)\n        return place",
        "        _require_whole(place, found)\n        return Place(place.epoch, min(place.seq + 1, found.last_seq))",
        ("tests/e2e/test_feed.py",),
    ),
    Bug(
        "the first checkpoint is ahead of the sent changes",
        SERVICE,
        "            yield self._event(identity.user_id, None, place)\n            limit =",
        "            now = (await self._log.list(identity.user_id, None, 1)).last_seq\n"
        "            yield self._event(identity.user_id, None, Place(place.epoch, now))\n            limit =",
        ("tests/e2e/test_feed.py",),
    ),
    Bug(
        "all users share one sequence of change numbers",
        WRITES,
        "UPDATE task.counters SET last_seq = last_seq + p_count WHERE",
        "UPDATE task.counters SET last_seq = (SELECT max(last_seq) FROM task.counters) + p_count WHERE",
        ("tests/e2e/test_feed.py",),
    ),
    Bug(
        "polling of the change log is switched off",
        WATCHING,
        "user.moved(last_seq, self._by_poll)",
        "del last_seq",
        ("tests/e2e/test_watching_outages.py", "-k", "without_valkey"),
    ),
    Bug(
        "a change counts as sent because another stream has sent it",
        WATCHING,
        "return seqs.pop() if len(seqs) == 1 else UNKNOWN",
        "return max(seqs)",
        ("tests/task_service/feed/test_watching.py", "-k", "another_stream"),
    ),
    Bug(
        "the sessions of open streams are not checked",
        APP,
        "wakeups, revocations.check, metrics)",
        "wakeups, lambda _: None, metrics)",
        ("tests/e2e/test_watching.py", "-k", "ends_with_its_session"),
    ),
    Bug(
        "a stream sends all pending changes before it ends",
        SERVICE,
        "                        watch.check()\n",
        "",
        ("tests/task_service/feed/test_watching.py", "-k", "much_to_tell"),
    ),
    Bug(
        "a stream does not end when the service stops",
        WATCHING,
        "watch.end(ServiceStopping())",
        "del watch",
        ("tests/e2e/test_watching_outages.py", "-k", "replica_that_stops"),
    ),
    Bug(
        "a stream whose client does not read is not closed",
        PIPELINE,
        "with at_most(self.slow_reader_seconds, SlowReader):",
        "with at_most(3600, SlowReader):",
        ("tests/e2e/test_watching_outages.py", "-k", "does_not_read"),
    ),
    Bug(
        "a failed write ends a stream before grpc cancels it",
        "servicekit/rpc/server.py",
        "                await asyncio.sleep(CANCELLED_WITHIN_SECONDS)\n",
        "",
        ("tests/servicekit/rpc/test_streams.py", "-k", "write_that_fails"),
    ),
    Bug(
        "the gateway's connection window is too small for all streams",
        GATEWAY,
        """            initial_stream_window_size: 262144
            # Large enough for all streams. Otherwise streams whose clients do not read would block all other streams to this replica.
            initial_connection_window_size: 268435456
""",
        """            initial_stream_window_size: 1048576
            initial_connection_window_size: 8388608
""",
        ("tests/gateway/test_streams.py", "-k", "do_not_read"),
    ),
    Bug(
        "refresh tokens from before a restore stay valid",
        AFTER_RESTORE,
        "UPDATE auth.sessions SET ended_at = clock_timestamp() WHERE ended_at IS NULL;",
        "",
        ("tests/deploy/test_restore.py", "-k", "lost"),
    ),
    Bug(
        "access tokens from before a restore stay valid",
        AFTER_RESTORE,
        "DELETE FROM auth.signing_keys;",
        "",
        ("tests/deploy/test_restore.py", "-k", "lost"),
    ),
    Bug(
        "a backup is not verified by reading it back",
        BACKUP,
        'pg_restore --file=/dev/null "$draft" || fail "the dump cannot be read back"',
        "",
        ("tests/deploy/test_backup.py", "-k", "looks_good"),
    ),
    Bug(
        "a stream that waits does not notice that its log was replaced",
        WATCHING,
        'if watch.epoch not in ("", epoch):',
        "if False:",
        ("tests/task_service/feed/test_replaced_log.py",),
    ),
    Bug(
        "a change of a kind that only a newer version knows ends a stream with INTERNAL",
        "task_service/feed/repository.py",
        "    return row[3] in KNOWN_KINDS\n",
        "    return True\n",
        ("tests/task_service/feed/test_newer_kinds.py",),
    ),
    Bug(
        "after a failover of PostgreSQL a reader of events keeps its place",
        "servicekit/access/revocations.py",
        """ or ("" not in (epoch, self.epoch) and epoch != self.epoch)""",
        "",
        ("tests/e2e/test_failover.py", "-k", "lost_commits"),
    ),
    Bug(
        "after a failover of PostgreSQL the events keep their epoch",
        "auth_service/migrations/0004_failover.sql",
        "SET epoch = gen_random_uuid(), server",
        "SET server",
        ("tests/auth_service/events/test_repository.py", "-k", "failover"),
    ),
)
