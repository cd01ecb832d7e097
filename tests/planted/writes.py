"""Bugs of writes: update masks, etags, idempotency keys, batches and the bin."""

from typing import Final

from tests.planted.bug import Bug

CACHE: Final = "task_service/tasks/cache.py"
HANDLER: Final = "task_service/tasks/handler.py"
REQUEST_CHECKS: Final = "task_service/tasks/checks.py"
REPOSITORY: Final = "task_service/tasks/repository.py"
RETRY_METADATA: Final = "servicekit/rpc/retry.py"
SERVER: Final = "servicekit/rpc/server.py"
DOMAIN: Final = "task_service/tasks/domain.py"
SERVICE: Final = "task_service/tasks/service.py"
JOINED: Final = "task_service/tasks/joined.py"
LISTS: Final = "task_service/query/list_statement.py"
CHECKS: Final = "task_service/migrations/0004_writes.sql"
JOINED_WRITE: Final = "task_service/migrations/0006_write_cost.sql"
WRITE: Final = "task_service/migrations/0010_citus.sql"
MODEL: Final = ("tests/model/test_model.py",)
IDEMPOTENCY: Final = "tests/e2e/test_idempotency.py"
LOST_ANSWERS: Final = "tests/e2e/test_lost_answers.py"
SAFE_WRITES: Final = "tests/contract/test_safe_writes.py"
BATCHES: Final = "tests/contract/test_batches.py"
JOINED_WRITES: Final = "tests/task_service/tasks/test_joined.py"
COUNTS: Final = "tests/task_service/tasks/test_counts.py"

WRITES_BUGS: Final = (
    Bug(
        "a replayed answer is cached as the current value",
        CACHE,
        "if fence is None or written.replayed or len(fence.task_ids) > 1",
        "if fence is None or len(fence.task_ids) > 1",
        ("tests/task_service/tasks/test_writes.py",),
    ),
    Bug(
        "an idempotency key is read before the counter's lock is taken",
        WRITE,
        """        SELECT * INTO v_kept FROM task.idempotency_keys
         WHERE user_id = p_user AND key = p_key AND created_at > clock_timestamp() - interval '24 hours';
        IF FOUND THEN
""",
        """        SELECT * INTO v_kept FROM task.idempotency_keys
         WHERE user_id = p_user AND key = p_key AND created_at > clock_timestamp() - interval '24 hours';
        IF FOUND AND v_kept.created_at < now() THEN
""",
        ("tests/task_service/tasks/test_writes.py", "-k", "two_at_once"),
    ),
    Bug(
        "an etag is not checked",
        CHECKS,
        "IF v_task.version <> ALL (p_versions) THEN",
        "IF false THEN",
        ("tests/task_service/tasks/test_writes.py", "-k", "etag"),
    ),
    Bug(
        "an idempotency key is shared by all users",
        WRITE,
        "         WHERE user_id = p_user AND key = p_key AND created_at >",
        "         WHERE key = p_key AND created_at >",
        (IDEMPOTENCY, "-k", "another_users_key"),
    ),
    Bug(
        "an idempotency key never expires",
        WRITE,
        "AND key = p_key AND created_at > clock_timestamp() - interval '24 hours';",
        "AND key = p_key;",
        (IDEMPOTENCY, "-k", "after_a_day"),
    ),
    Bug(
        "the request hash omits If-Match",
        RETRY_METADATA,
        'said = (request.DESCRIPTOR.full_name, call.metadata.get(IF_MATCH, ""), "")',
        'said = (request.DESCRIPTOR.full_name, "", "")',
        (IDEMPOTENCY, "-k", "another_if_match"),
    ),
    Bug(
        "the request hash omits the method",
        RETRY_METADATA,
        'said = (request.DESCRIPTOR.full_name, call.metadata.get(IF_MATCH, ""), "")',
        'said = ("", call.metadata.get(IF_MATCH, ""), "")',
        (IDEMPOTENCY, "-k", "same_bytes"),
    ),
    Bug(
        "a replayed answer is not marked as replayed", HANDLER, "    if written.replayed:", "    if not written:", (IDEMPOTENCY, "-k", "as_at_first")
    ),
    Bug(
        "a rejected request uses up its idempotency key",
        REPOSITORY,
        """            raise _refusal(error.sqlstate or "", str(error)) or error from error
        if rows and rows[0][1]""",
        """            if key is not None:
                keep = "INSERT INTO task.idempotency_keys VALUES ($1, $2, $3, '[]', now())"
                await self._database.fetchrow(keep, user_id, key, request_hash)
            raise _refusal(error.sqlstate or "", str(error)) or error from error
        if rows and rows[0][1]""",
        (IDEMPOTENCY, "-k", "refusal"),
    ),
    Bug(
        "an answer is stored after the write, in another transaction",
        REPOSITORY,
        """            rows = await self._database.fetch(WRITE, *args, MAX_ANSWER_BYTES, *expected, request.fenced, on_failed=on_failed)
""",
        """            find = "SELECT FROM task.idempotency_keys WHERE user_id = $1 AND key = $2"
            kept = key is None or await self._database.fetchrow(find, user_id, key) is not None
            args = args if kept else (*args[:6], None, None)
            rows = await self._database.fetch(WRITE, *args, MAX_ANSWER_BYTES, *expected, request.fenced, on_failed=on_failed)
            if not kept:
                answer = "SELECT $1, $2, $3, coalesce(jsonb_agg(to_jsonb(t)), '[]'), now() FROM task.tasks AS t WHERE user_id = $1 AND id = ANY ($4)"
                keep = f"INSERT INTO task.idempotency_keys {answer}"
                await self._database.fetchrow(keep, user_id, key, request_hash, [row[3] for row in rows])
""",
        (LOST_ANSWERS, "-k", "postgres and after"),
    ),
    Bug("etags in batches are not checked", HANDLER, "    return (given,) if given else None", "    return None", (BATCHES, "-k", "refused_one")),
    Bug(
        "a weak etag matches",
        RETRY_METADATA,
        "    tags = tuple(re.findall(_TAG, header))",
        '    tags = tuple(tag.removeprefix("W/") for tag in re.findall(_TAG, header))',
        (SAFE_WRITES, "-k", "another_etag"),
    ),
    Bug(
        "a batch counts its rejected operations from 1",
        REPOSITORY,
        "    return refused(int(index), etag",
        "    return refused(int(index) + 1, etag",
        (BATCHES, "-k", "refused_one"),
    ),
    Bug(
        "a batch counts its invalid fields from 1", REQUEST_CHECKS, "in enumerate(found):", "in enumerate(found, 1):", (BATCHES, "-k", "refused_one")
    ),
    Bug(
        "a batch is not rolled back when one operation is rejected",
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
        (BATCHES, "-k", "refused_one"),
    ),
    Bug(
        "a batch read returns tasks in the bin",
        REPOSITORY,
        "WHERE user_id = $1 AND id = ANY ($2) AND deleted_at IS NULL",
        "WHERE user_id = $1 AND id = ANY ($2)",
        (SAFE_WRITES, "-k", "in_the_bin"),
    ),
    Bug(
        "the size limit of answers is that of requests",
        SERVER,
        '("grpc.max_send_message_length", MAX_ANSWER_BYTES)',
        '("grpc.max_send_message_length", MAX_REQUEST_BYTES)',
        (BATCHES, "-k", "largest_batch"),
    ),
    Bug(
        "a deleted task stays in the cache",
        CACHE,
        "if isinstance(operations[0], Creation):",
        "if isinstance(operations[0], Creation | Deletion):",
        MODEL,
    ),
    Bug("a field outside the update mask is written", WRITE, "IF 'description' = ANY (v_op.mask) THEN", "IF v_op.description <> '' THEN", MODEL),
    Bug(
        "a batch skips a rejected deletion",
        WRITE,
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
        "an undeletion does not clear the time of deletion",
        WRITE,
        "CASE WHEN p_kind = 3 THEN greatest(v_now, updated_at) END,",
        "CASE WHEN p_kind = 3 THEN greatest(v_now, updated_at) ELSE deleted_at END,",
        MODEL,
    ),
    Bug(
        "an etag is parsed too loosely",
        DOMAIN,
        "return int(etag[1:-1]) if _ETAG.fullmatch(etag) else None",
        """return int(etag.strip('W/"')) if etag.strip('W/"').isdigit() else None""",
        MODEL,
    ),
    Bug(
        "a deletion clears the time of completion",
        WRITE,
        "updated_at = greatest(v_now, updated_at), version = version + 1",
        "updated_at = greatest(v_now, updated_at), version = version + 1, status = 1, completed_at = NULL",
        MODEL,
    ),
    Bug("an idempotency key is accepted for a different request", WRITE, "IF v_kept.request_hash <> p_hash THEN", "IF false THEN", MODEL),
    Bug(
        "a change of the status is not counted",
        WRITE,
        "                v_counts[v_new.status] := v_counts[v_new.status] + 1;\n",
        "",
        (COUNTS, "-k", "every_write"),
    ),
    Bug(
        "a rejected write ends the writes that are sent with it",
        JOINED_WRITE,
        "            IF left(SQLSTATE, 2) NOT IN ('TM', '22', '23') THEN\n",
        "            IF true THEN\n",
        (JOINED_WRITES, "-k", "own_answer"),
    ),
    Bug(
        "a joined write counts as ended when its caller leaves",
        JOINED,
        "            elif _was_answered(waiting.answer):\n",
        "            else:\n",
        (JOINED_WRITES, "-k", "while_its_write_runs"),
    ),
    Bug("a deleted task is still counted", WRITE, "CASE WHEN p_kind = 3 THEN -1 ELSE 1 END;", "CASE WHEN p_kind = 3 THEN 0 ELSE 1 END;", MODEL),
    Bug(
        "a migration does not lock out the writes whose tasks it counts",
        JOINED_WRITE,
        """LOCK TABLE task.counters IN SHARE ROW EXCLUSIVE MODE;
LOCK TABLE task.tasks IN SHARE ROW EXCLUSIVE MODE;
""",
        "",
        (COUNTS, "-k", "migration"),
    ),
    Bug("a list omits the tasks of one status", LISTS, "for status in sorted(statuses)]", "for status in sorted(statuses)[:2]]", MODEL),
    Bug("a merged list is not sorted", LISTS, 'AS found ORDER BY {order}"', 'AS found"', ("tests/task_service/tasks/test_paging.py",)),
    Bug(
        "a list that is read from its end misses a task",
        LISTS,
        "OFFSET greatest({behind} - {limit}, 0)",
        "OFFSET greatest({behind} - {limit}, 1)",
        ("tests/task_service/tasks/test_paging.py", "-k", "skipped"),
    ),
    Bug(
        "the values of a list are bound in the wrong order",
        LISTS,
        "limit, *values, *position,",
        "limit, *position, *values,",
        ("tests/task_service/query/test_filters.py", "-k", "bound"),
    ),
    Bug(
        "all users share the turns of expensive lists",
        REPOSITORY,
        "self._expensive.turn(query.user_id)",
        "self._expensive.turn(UUID(int=0))",
        ("tests/task_service/tasks/test_turns.py",),
    ),
    Bug(
        "the CA of PostgreSQL is read once",
        "servicekit/stores/postgres.py",
        "            options.url,\n            min_size=0,",
        "            options.url,\n"
        '            ssl=__import__("ssl").create_default_context(cafile=options.url.rpartition("=")[2]) if "sslroot" in options.url else None,\n'
        "            min_size=0,",
        ("tests/e2e/test_ca_rotation.py",),
    ),
    Bug(
        "expensive lists of many users use the whole pool",
        "servicekit/turns.py",
        "self._of_all = None if of_all is None else asyncio.Semaphore(of_all)",
        "self._of_all: asyncio.Semaphore | None = None",
        ("tests/task_service/tasks/test_turns.py", "-k", "half_of_the_pool"),
    ),
    Bug(
        "the calls of a user wait for a connection behind all calls of another",
        "servicekit/stores/slots.py",
        "                self._lines.move_to_end(owner)\n",
        "                pass\n",
        ("tests/servicekit/stores/test_slots.py",),
    ),
    Bug(
        "a list with two conditions takes no turn",
        LISTS,
        "    return with_total or len(others) > 1 or",
        "    return with_total or",
        ("tests/task_service/tasks/test_turns.py",),
    ),
    Bug(
        "a negated filter omits tasks without a value",
        "task_service/query/condition_sql.py",
        "IS NOT TRUE",
        "= false",
        ("tests/task_service/query/test_filters.py", "-k", "gives_what_it_says"),
    ),
    Bug("a page token omits the tiebreaker", "task_service/tasks/pages.py", "for key in order), task.id)", "for key in order), UUID(int=0))", MODEL),
    Bug("a list sorts ties in the wrong direction", LISTS, 'Key("id", "id", last)]', 'Key("id", "id", not last)]', MODEL),
    Bug(
        "a migration has a condition that Citus does not execute",
        "task_service/migrations/0011_text.sql",
        "WHERE EXISTS (SELECT FROM unnest(labels) AS label WHERE label IS NOT NFC NORMALIZED);",
        "WHERE labels::text IS NOT NFC NORMALIZED;",
        ("tests/task_service/test_migrations.py", "-k", "keep_the_rules"),
    ),
)
