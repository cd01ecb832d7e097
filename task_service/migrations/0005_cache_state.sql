-- Whether the replicas may rely on the cache (docs/adr/0017-cache-protocol.md).

CREATE TABLE task.cache_state (
    single            boolean PRIMARY KEY DEFAULT true CHECK (single),
    generation        uuid NOT NULL,          -- another one at each OFF and each ARMED
    mode              smallint NOT NULL CHECK (mode BETWEEN 1 AND 3),   -- 1 OFF, 2 ARMED, 3 ON
    process           text NOT NULL,          -- the run id of the Redis process that holds the generation's keys; empty while OFF
    replication       text NOT NULL,          -- its replication id, which is another one after it was a replica; empty while OFF
    armed_before      xid8,                   -- a transaction that began after ARMED was committed
    unreachable_until timestamptz NOT NULL DEFAULT '-infinity'          -- until then ARMED must not be set: a replica does not reach Redis
);
INSERT INTO task.cache_state (generation, mode, process, replication) VALUES (gen_random_uuid(), 1, '', '');

-- They have been in no release.
DROP TABLE task.unfenced_writes;
DROP FUNCTION task.write(uuid, smallint, jsonb, task.actor, text, bytea, integer, boolean);

-- Every write: p_kind as in task.changes, all of p_operations or none. The tasks as they are then, in the order of the operations; of a deletion none, and
-- of a creation without a key the first alone: the others are what was asked for, of the same moment.
-- p_generation, p_fenced: the state of the cache under which the write has set its fence, or has waited in OFF; null if no reader can know the tasks.
-- If the state is another one by now, the write is refused with TM007. The comparison comes after the counter's lock, so this transaction has an id by then,
-- and whoever sets ON waits for it.
-- VOLATILE plpgsql and not one statement: after the wait for the counter's lock each statement sees what was committed meanwhile, where a single
-- statement would still see its old snapshot.
CREATE FUNCTION task.write(
    p_user uuid, p_kind smallint, p_operations jsonb, p_actor task.actor, p_key text, p_hash bytea, p_max_bytes integer, p_generation uuid, p_fenced boolean
) RETURNS TABLE (o_replayed boolean, o_task task.tasks) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_count   integer := jsonb_array_length(p_operations);
    v_seq     bigint := task.take_seqs(p_user, v_count);
    v_changed integer := v_count;
    v_kept    task.idempotency_keys;
    v_tasks   task.tasks[];
BEGIN
    IF p_generation IS NOT NULL THEN
        PERFORM FROM task.cache_state WHERE generation = p_generation AND (mode > 1) = p_fenced;
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'TM007', MESSAGE = '0';
        END IF;
    END IF;
    IF p_key IS NOT NULL THEN
        SELECT * INTO v_kept FROM task.idempotency_keys
         WHERE user_id = p_user AND key = p_key AND created_at > clock_timestamp() - interval '24 hours';
        IF FOUND THEN
            IF v_kept.request_hash <> p_hash THEN
                RAISE EXCEPTION USING ERRCODE = 'TM005', MESSAGE = '0';
            END IF;
            PERFORM task.return_seqs(p_user, v_count);
            RETURN QUERY SELECT true, kept FROM jsonb_populate_recordset(NULL::task.tasks, v_kept.answer) AS kept;
            -- Also for an answer that has no task.
            RETURN QUERY SELECT true, NULL::task.tasks WHERE v_kept.answer = '[]';
            RETURN;
        END IF;
    END IF;
    CASE p_kind
        WHEN 1 THEN v_tasks := task.create_tasks(p_user, p_operations, v_seq, p_actor, p_key IS NOT NULL);
        WHEN 2 THEN SELECT * INTO v_tasks, v_changed FROM task.update_tasks(p_user, p_operations, v_seq, p_actor, p_max_bytes);
        ELSE v_tasks := task.move_tasks(p_user, p_operations, v_seq, p_kind, p_actor);
    END CASE;
    IF v_changed < v_count THEN
        PERFORM task.return_seqs(p_user, v_count - v_changed);
    END IF;
    IF p_kind = 3 THEN
        v_tasks := '{}';
    END IF;
    IF p_key IS NOT NULL THEN
        INSERT INTO task.idempotency_keys (user_id, key, request_hash, answer, created_at)
        VALUES (p_user, p_key, p_hash, to_jsonb(v_tasks), clock_timestamp())
        ON CONFLICT (user_id, key) DO UPDATE SET request_hash = excluded.request_hash, answer = excluded.answer, created_at = excluded.created_at;
    END IF;
    RETURN QUERY SELECT false, done FROM unnest(v_tasks) AS done;
END $$;

-- Each of the following returns the row as it is afterwards, whether it has changed it or not.

CREATE FUNCTION task.cache_off(p_generation uuid) RETURNS task.cache_state LANGUAGE sql VOLATILE AS $$
    UPDATE task.cache_state SET mode = 1, generation = gen_random_uuid(), process = '', replication = '', armed_before = NULL
     WHERE generation = p_generation AND mode > 1;
    SELECT * FROM task.cache_state
$$;

-- p_next: the new generation, whose marker the caller has set in the Redis process p_process. An unreachable_until far ahead is that of a clock which
-- has been set back.
CREATE FUNCTION task.cache_armed(p_generation uuid, p_next uuid, p_process text, p_replication text) RETURNS task.cache_state LANGUAGE sql VOLATILE AS $$
    UPDATE task.cache_state SET mode = 2, generation = p_next, process = p_process, replication = p_replication, armed_before = NULL
     WHERE generation = p_generation AND mode = 1
       AND unreachable_until NOT BETWEEN clock_timestamp() AND clock_timestamp() + interval '1 minute';
    SELECT * FROM task.cache_state
$$;

-- Not before every transaction has ended that ran when ARMED was committed: it may be a write that compared its state before. Each of them has a smaller
-- id than the transaction of the first call, which begins after ARMED. A later call sets ON when nothing that old is running any more.
CREATE FUNCTION task.cache_on(p_generation uuid) RETURNS task.cache_state LANGUAGE sql VOLATILE AS $$
    UPDATE task.cache_state
       SET mode = CASE WHEN armed_before IS NULL THEN 2 ELSE 3 END, armed_before = coalesce(armed_before, pg_current_xact_id())
     WHERE generation = p_generation AND mode = 2
       AND (armed_before IS NULL OR pg_snapshot_xmin(pg_current_snapshot()) > armed_before);
    SELECT * FROM task.cache_state
$$;

-- For p_seconds nobody sets ARMED. Writes the row only if the time has run down to less than half, since every replica may call this.
CREATE FUNCTION task.cache_unreachable(p_seconds double precision) RETURNS task.cache_state LANGUAGE sql VOLATILE AS $$
    UPDATE task.cache_state SET unreachable_until = clock_timestamp() + make_interval(secs => p_seconds)
     WHERE unreachable_until NOT BETWEEN clock_timestamp() + make_interval(secs => p_seconds / 2) AND clock_timestamp() + make_interval(secs => p_seconds);
    SELECT * FROM task.cache_state
$$;

-- Removes at most p_limit rows of a closed account from each table. Returns how many it removed.
CREATE OR REPLACE FUNCTION task.remove_rows(p_user uuid, p_limit integer) RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_rows    integer;
    v_removed integer := 0;
BEGIN
    PERFORM FROM task.counters WHERE user_id = p_user AND closed_at IS NOT NULL;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    DELETE FROM task.tasks WHERE user_id = p_user AND id IN (SELECT id FROM task.tasks WHERE user_id = p_user LIMIT p_limit);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_removed := v_removed + v_rows;
    DELETE FROM task.changes WHERE user_id = p_user AND seq IN (SELECT seq FROM task.changes WHERE user_id = p_user LIMIT p_limit);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_removed := v_removed + v_rows;
    DELETE FROM task.idempotency_keys WHERE user_id = p_user AND key IN (SELECT key FROM task.idempotency_keys WHERE user_id = p_user LIMIT p_limit);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_removed + v_rows;
END $$;

-- Removes what is kept no longer, at most p_limit rows from each table: tasks from the bin, answers under idempotency keys, the change log's beginning.
-- Nothing if another does it just now (a lock of this transaction, which also holds behind PgBouncer). Returns the number of rows of the largest part.
CREATE OR REPLACE FUNCTION task.sweep(p_bin interval, p_changes interval, p_limit integer) RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_rows integer;
    v_most integer := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('task sweep', 0)) THEN
        RETURN 0;
    END IF;
    DELETE FROM task.tasks WHERE deleted_at < now() - p_bin AND (user_id, id) IN (
        SELECT user_id, id FROM task.tasks WHERE deleted_at < now() - p_bin LIMIT p_limit FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_most := greatest(v_most, v_rows);
    DELETE FROM task.idempotency_keys WHERE (user_id, key) IN (
        SELECT user_id, key FROM task.idempotency_keys WHERE created_at < now() - interval '24 hours' LIMIT p_limit FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_most := greatest(v_most, v_rows);
    DELETE FROM task.changes WHERE (user_id, seq) IN (
        SELECT user_id, seq FROM task.changes WHERE at < now() - p_changes ORDER BY at LIMIT p_limit);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN greatest(v_most, v_rows);
END $$;
