-- Writes that are safe to retry, several at once, and a change log that can be followed. All writes go through one function, task.write.

-- Which log this is. A database that was restored gets another epoch, so that whoever followed the one before is told to list again.
CREATE TABLE task.feed (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    epoch  uuid NOT NULL
);
INSERT INTO task.feed (epoch) VALUES (gen_random_uuid());

-- The answers of writes that had a key, for a day. In the transaction of the write itself.
CREATE TABLE task.idempotency_keys (
    user_id      uuid        NOT NULL,
    key          text        NOT NULL,
    request_hash bytea       NOT NULL,
    answer       jsonb       NOT NULL,   -- the tasks of the answer, in its order
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (user_id, key)
);

-- Tasks that were changed while Redis could not be told: what it still holds of them is old. For as long as a value can live there, and for every
-- replica that uses Redis again, since the one that wrote may not.
CREATE TABLE task.unfenced_writes (
    user_id    uuid        NOT NULL,
    task_id    uuid        NOT NULL,
    written_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, task_id)
);
CREATE INDEX unfenced_writes_by_time ON task.unfenced_writes (written_at);

-- For the sweeper.
CREATE INDEX idempotency_keys_by_created_at ON task.idempotency_keys (created_at);
CREATE INDEX changes_by_at ON task.changes (at);
CREATE INDEX tasks_by_deleted_at ON task.tasks (deleted_at) WHERE deleted_at IS NOT NULL;

-- They have been in no release.
DROP FUNCTION task.create_task(uuid, uuid, text, text, smallint, smallint, timestamptz, text[], task.actor);
DROP FUNCTION task.update_task(uuid, uuid, text[], text, text, smallint, smallint, timestamptz, text[], task.actor);
DROP FUNCTION task.delete_task(uuid, uuid, task.actor);
DROP FUNCTION task.next_seq(uuid);
DROP FUNCTION task.return_seq(uuid);

-- What a write is refused with: TM001 the account was deleted, TM002 there is no such task, TM003 it has another version, TM004 it is not in the bin, TM005
-- the idempotency key was used for another request, TM006 the answer is too large. The message is the index of the operation, and for TM003 the version.

-- Locks the user's counter until the end of the transaction and gives out p_count numbers: those behind the one that it returns.
CREATE FUNCTION task.take_seqs(p_user uuid, p_count integer) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_last bigint;
BEGIN
    INSERT INTO task.counters AS c (user_id, last_seq) VALUES (p_user, p_count)
    ON CONFLICT (user_id) DO UPDATE SET last_seq = c.last_seq + p_count WHERE c.closed_at IS NULL
    RETURNING last_seq INTO v_last;
    IF v_last IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'TM001', MESSAGE = '0';
    END IF;
    RETURN v_last - p_count;
END $$;

-- Takes back the last p_count numbers. The lock is still held, so nobody has taken a later one.
CREATE FUNCTION task.return_seqs(p_user uuid, p_count integer) RETURNS void LANGUAGE sql VOLATILE AS $$
    UPDATE task.counters SET last_seq = last_seq - p_count WHERE user_id = p_user
$$;

-- The task that an operation is about, if its version is one of p_versions (null: any).
CREATE FUNCTION task.task_to_write(p_user uuid, p_id uuid, p_deleted boolean, p_versions bigint[], p_n integer)
RETURNS task.tasks LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_task task.tasks;
BEGIN
    SELECT * INTO v_task FROM task.tasks WHERE user_id = p_user AND id = p_id;
    IF NOT FOUND OR (v_task.deleted_at IS NOT NULL AND NOT p_deleted) THEN
        RAISE EXCEPTION USING ERRCODE = 'TM002', MESSAGE = p_n::text;
    END IF;
    IF v_task.deleted_at IS NULL AND p_deleted THEN
        RAISE EXCEPTION USING ERRCODE = 'TM004', MESSAGE = p_n::text;
    END IF;
    IF v_task.version <> ALL (p_versions) THEN
        RAISE EXCEPTION USING ERRCODE = 'TM003', MESSAGE = p_n || ' ' || v_task.version;
    END IF;
    RETURN v_task;
END $$;

-- p_operations: [{n, id, title, description, status, priority, due_date, labels}, …], n from 0. The new tasks, in that order, or the first of them.
CREATE FUNCTION task.create_tasks(p_user uuid, p_operations jsonb, p_seq bigint, p_actor task.actor, p_all boolean)
RETURNS task.tasks[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now   timestamptz := clock_timestamp();
    v_tasks task.tasks[];
BEGIN
    WITH operation AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(p_operations) AS o (
            n integer, id uuid, title text, description text, status smallint, priority smallint, due_date timestamptz, labels text[])
    ), made AS (
        INSERT INTO task.tasks AS t
            (user_id, id, title, description, status, priority, due_date, labels, created_at, updated_at, completed_at, version)
        SELECT p_user, id, title, description, status, priority, due_date, labels, v_now, v_now, CASE WHEN status = 3 THEN v_now END, 1 FROM operation
        RETURNING t.id, t AS task
    ), logged AS (
        INSERT INTO task.changes (user_id, seq, kind, task_id, version, snapshot, changed_fields, actor_id, session_id, request_id, at)
        SELECT p_user, p_seq + 1 + n, 1, id, 1, to_jsonb(made.task), '{}', p_actor.actor_id, p_actor.session_id, p_actor.request_id, v_now
          FROM made JOIN operation USING (id)
    )
    SELECT array_agg(made.task ORDER BY n) INTO v_tasks FROM made JOIN operation USING (id) WHERE p_all OR n = 0;
    RETURN v_tasks;
END $$;

-- p_operations: as for task.create_tasks, with mask and versions beside it. Setting what is already so changes nothing and takes no number.
CREATE FUNCTION task.update_tasks(p_user uuid, p_operations jsonb, p_seq bigint, p_actor task.actor, p_max_bytes integer, OUT o_tasks task.tasks[], OUT o_changed integer)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_op     record;
    v_old    task.tasks;
    v_new    task.tasks;
    v_fields text[];
    v_bytes  bigint := 0;
BEGIN
    o_changed := 0;
    FOR v_op IN
        SELECT * FROM jsonb_to_recordset(p_operations) AS o (
            n integer, id uuid, versions bigint[], mask text[], title text, description text, status smallint, priority smallint, due_date timestamptz,
            labels text[])
         ORDER BY n
    LOOP
        v_old := task.task_to_write(p_user, v_op.id, false, v_op.versions, v_op.n);
        v_new := v_old;
        v_fields := '{}';
        IF 'title' = ANY (v_op.mask) THEN v_new.title := v_op.title; END IF;
        IF 'description' = ANY (v_op.mask) THEN v_new.description := v_op.description; END IF;
        IF 'status' = ANY (v_op.mask) THEN v_new.status := v_op.status; END IF;
        IF 'priority' = ANY (v_op.mask) THEN v_new.priority := v_op.priority; END IF;
        IF 'due_date' = ANY (v_op.mask) THEN v_new.due_date := v_op.due_date; END IF;
        IF 'labels' = ANY (v_op.mask) THEN v_new.labels := v_op.labels; END IF;
        IF v_new.title <> v_old.title THEN v_fields := v_fields || 'title'::text; END IF;
        IF v_new.description <> v_old.description THEN v_fields := v_fields || 'description'::text; END IF;
        IF v_new.status <> v_old.status THEN v_fields := v_fields || 'status'::text; END IF;
        IF v_new.priority <> v_old.priority THEN v_fields := v_fields || 'priority'::text; END IF;
        IF v_new.due_date IS DISTINCT FROM v_old.due_date THEN v_fields := v_fields || 'due_date'::text; END IF;
        IF v_new.labels <> v_old.labels THEN v_fields := v_fields || 'labels'::text; END IF;
        IF v_fields <> '{}' THEN
            o_changed := o_changed + 1;
            v_new.version := v_old.version + 1;
            -- Never backwards, whatever the clock does.
            v_new.updated_at := greatest(clock_timestamp(), v_old.updated_at);
            v_new.completed_at := CASE WHEN v_new.status <> 3 THEN NULL WHEN v_old.status = 3 THEN v_old.completed_at ELSE v_new.updated_at END;
            UPDATE task.tasks
               SET title = v_new.title, description = v_new.description, status = v_new.status, priority = v_new.priority,
                   due_date = v_new.due_date, labels = v_new.labels, updated_at = v_new.updated_at, completed_at = v_new.completed_at,
                   version = v_new.version
             WHERE user_id = p_user AND id = v_op.id;
            PERFORM task.log_change(v_new, p_seq + o_changed, 2::smallint, v_fields, p_actor);
        END IF;
        v_bytes := v_bytes + octet_length(v_new.title) + octet_length(v_new.description) + octet_length(v_new.labels::text);
        IF v_bytes > p_max_bytes THEN
            RAISE EXCEPTION USING ERRCODE = 'TM006', MESSAGE = v_op.n::text;
        END IF;
        o_tasks := o_tasks || v_new;
    END LOOP;
END $$;

-- p_operations: [{n, id, versions}, …]. Moves the tasks to the bin (p_kind 3) or out of it (4). They are as they are then.
CREATE FUNCTION task.move_tasks(p_user uuid, p_operations jsonb, p_seq bigint, p_kind smallint, p_actor task.actor) RETURNS task.tasks[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_op    record;
    v_task  task.tasks;
    v_now   timestamptz := clock_timestamp();
    v_tasks task.tasks[];
BEGIN
    FOR v_op IN SELECT * FROM jsonb_to_recordset(p_operations) AS o (n integer, id uuid, versions bigint[]) ORDER BY n LOOP
        PERFORM task.task_to_write(p_user, v_op.id, p_kind = 4, v_op.versions, v_op.n);
        UPDATE task.tasks
           SET deleted_at = CASE WHEN p_kind = 3 THEN greatest(v_now, updated_at) END, updated_at = greatest(v_now, updated_at), version = version + 1
         WHERE user_id = p_user AND id = v_op.id
        RETURNING * INTO v_task;
        -- The sweeper, which waits for no counter, has removed it meanwhile.
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'TM002', MESSAGE = v_op.n::text;
        END IF;
        PERFORM task.log_change(v_task, p_seq + 1 + v_op.n, p_kind, '{}', p_actor);
        v_tasks := v_tasks || v_task;
    END LOOP;
    RETURN v_tasks;
END $$;

-- Every write: p_kind as in task.changes, all of p_operations or none. The tasks as they are then, in the order of the operations; of a deletion none, and
-- of a creation without a key the first alone: the others are what was asked for, of the same moment.
-- p_unfenced: the cache could not be told, which is remembered. o_replayed: nothing was done, since it was done before under this key, and the tasks are those of then.
-- VOLATILE plpgsql and not one statement: after the wait for the counter's lock each statement sees what was committed meanwhile, where a single
-- statement would still see its old snapshot.
CREATE FUNCTION task.write(
    p_user uuid, p_kind smallint, p_operations jsonb, p_actor task.actor, p_key text, p_hash bytea, p_max_bytes integer, p_unfenced boolean
) RETURNS TABLE (o_replayed boolean, o_task task.tasks) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_count   integer := jsonb_array_length(p_operations);
    v_seq     bigint := task.take_seqs(p_user, v_count);
    v_changed integer := v_count;
    v_kept    task.idempotency_keys;
    v_tasks   task.tasks[];
BEGIN
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
    IF p_unfenced THEN
        INSERT INTO task.unfenced_writes (user_id, task_id, written_at)
        SELECT p_user, id, clock_timestamp() FROM (SELECT DISTINCT id FROM jsonb_to_recordset(p_operations) AS o (id uuid)) AS operation
        ON CONFLICT (user_id, task_id) DO UPDATE SET written_at = excluded.written_at;
    END IF;
    IF p_key IS NOT NULL THEN
        INSERT INTO task.idempotency_keys (user_id, key, request_hash, answer, created_at)
        VALUES (p_user, p_key, p_hash, to_jsonb(v_tasks), clock_timestamp())
        ON CONFLICT (user_id, key) DO UPDATE SET request_hash = excluded.request_hash, answer = excluded.answer, created_at = excluded.created_at;
    END IF;
    RETURN QUERY SELECT false, done FROM unnest(v_tasks) AS done;
END $$;

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
    v_removed := v_removed + v_rows;
    DELETE FROM task.unfenced_writes WHERE user_id = p_user AND task_id IN (SELECT task_id FROM task.unfenced_writes WHERE user_id = p_user LIMIT p_limit);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_removed + v_rows;
END $$;

-- Removes what is kept no longer, at most p_limit rows from each table: tasks from the bin, answers under idempotency keys, the change log's beginning.
-- Nothing if another does it just now (a lock of this transaction, which also holds behind PgBouncer). Returns the number of rows of the largest part.
CREATE FUNCTION task.sweep(p_bin interval, p_changes interval, p_limit integer) RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
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
    -- CACHE_TTL_SECONDS is a day at most.
    DELETE FROM task.unfenced_writes WHERE (user_id, task_id) IN (
        SELECT user_id, task_id FROM task.unfenced_writes WHERE written_at < now() - interval '2 days' LIMIT p_limit FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_most := greatest(v_most, v_rows);
    DELETE FROM task.changes WHERE (user_id, seq) IN (
        SELECT user_id, seq FROM task.changes WHERE at < now() - p_changes ORDER BY at LIMIT p_limit);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN greatest(v_most, v_rows);
END $$;
