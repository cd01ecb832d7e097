-- The writes in a form that PostgreSQL and Citus both execute, so that `distribute` can spread the tables over several servers (docs/citus.md).
-- What Citus does not execute: triggers, statements that write within a WITH, rows of a table as values in a statement (its columns must be named), and
-- a DELETE over all users that locks what it reads.

-- Waits for the writes that run, and lets no other write run until this transaction ends: see 0006_write_cost.sql. A write that waits here continues
-- in the functions below, which write the labels.
LOCK TABLE task.counters IN SHARE ROW EXCLUSIVE MODE;
LOCK TABLE task.tasks IN SHARE ROW EXCLUSIVE MODE;

DROP TRIGGER keep_labels_of_changed ON task.tasks;
DROP TRIGGER keep_labels_of_removed ON task.tasks;
DROP FUNCTION task.keep_labels();

-- Replaces a task's rows in task_labels. A task in the bin has none: then its labels are '{}' here. A statement for each label, because the labels are
-- few, and Citus executes an INSERT of one row more cheaply than one of a set.
CREATE FUNCTION task.write_labels(
    p_user uuid, p_id uuid, p_created_at timestamptz, p_old text[], p_was_completed boolean, p_new text[], p_is_completed boolean
) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_label text;
BEGIN
    IF p_old <> '{}' THEN
        DELETE FROM task.task_labels
         WHERE user_id = p_user AND label = ANY (p_old) AND completed = p_was_completed AND created_at = p_created_at AND task_id = p_id;
    END IF;
    FOREACH v_label IN ARRAY p_new LOOP
        INSERT INTO task.task_labels (user_id, label, completed, created_at, task_id)
        VALUES (p_user, v_label, p_is_completed, p_created_at, p_id)
        ON CONFLICT DO NOTHING;
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION task.log_change(p_task task.tasks, p_seq bigint, p_kind smallint, p_fields text[], p_actor task.actor)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_snapshot jsonb := to_jsonb(p_task);
BEGIN
    INSERT INTO task.changes (user_id, seq, kind, task_id, version, snapshot, changed_fields, actor_id, session_id, request_id, at)
    VALUES (p_task.user_id, p_seq, p_kind, p_task.id, p_task.version, v_snapshot, p_fields,
            p_actor.actor_id, p_actor.session_id, p_actor.request_id, p_task.updated_at);
END $$;

-- The same as task.create_tasks for one task. Its statements read no set, which makes the whole write a tenth cheaper.
CREATE OR REPLACE FUNCTION task.create_task(p_user uuid, p_operation jsonb, p_seq bigint, p_actor task.actor)
RETURNS task.tasks LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now      timestamptz := clock_timestamp();
    v_op       task.operation := jsonb_populate_record(NULL::task.operation, p_operation);
    v_task     task.tasks;
    v_snapshot jsonb;
BEGIN
    INSERT INTO task.tasks (user_id, id, title, description, status, priority, due_date, labels, created_at, updated_at, completed_at, version)
    VALUES (p_user, v_op.id, v_op.title, v_op.description, v_op.status, v_op.priority, v_op.due_date, v_op.labels, v_now, v_now,
            CASE WHEN v_op.status = 3 THEN v_now END, 1)
    RETURNING * INTO v_task;
    v_snapshot := to_jsonb(v_task);
    INSERT INTO task.changes (user_id, seq, kind, task_id, version, snapshot, changed_fields, actor_id, session_id, request_id, at)
    VALUES (p_user, p_seq + 1, 1, v_task.id, 1, v_snapshot, '{}', p_actor.actor_id, p_actor.session_id, p_actor.request_id, v_now);
    IF v_task.labels <> '{}' THEN
        PERFORM task.write_labels(p_user, v_task.id, v_now, '{}', false, v_task.labels, v_task.status = 3);
    END IF;
    PERFORM task.count_tasks(p_user, (v_task.status = 1)::integer, (v_task.status = 2)::integer, (v_task.status = 3)::integer);
    RETURN v_task;
END $$;

-- p_operations: [{n, id, title, description, status, priority, due_date, labels}, …], n from 0. The new tasks, in that order, or the first of them.
-- It names each column of task.tasks, so a migration that adds one replaces this function.
CREATE OR REPLACE FUNCTION task.create_tasks(p_user uuid, p_operations jsonb, p_seq bigint, p_actor task.actor, p_all boolean)
RETURNS task.tasks[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now         timestamptz := clock_timestamp();
    v_tasks       task.tasks[];
    v_pending     bigint;
    v_in_progress bigint;
    v_completed   bigint;
BEGIN
    IF jsonb_array_length(p_operations) = 1 THEN
        RETURN ARRAY[task.create_task(p_user, p_operations -> 0, p_seq, p_actor)];
    END IF;
    SELECT array_agg(ROW(p_user, id, title, description, status, priority, due_date, labels, v_now, v_now, CASE WHEN status = 3 THEN v_now END, NULL, 1)
                     ::task.tasks ORDER BY n),
           count(*) FILTER (WHERE status = 1), count(*) FILTER (WHERE status = 2), count(*) FILTER (WHERE status = 3)
      INTO v_tasks, v_pending, v_in_progress, v_completed
      FROM jsonb_to_recordset(p_operations) AS o (
        n integer, id uuid, title text, description text, status smallint, priority smallint, due_date timestamptz, labels text[]);
    INSERT INTO task.tasks (user_id, id, title, description, status, priority, due_date, labels, created_at, updated_at, completed_at, version)
    SELECT p_user, id, title, description, status, priority, due_date, labels, created_at, updated_at, completed_at, version FROM unnest(v_tasks);
    INSERT INTO task.changes (user_id, seq, kind, task_id, version, snapshot, changed_fields, actor_id, session_id, request_id, at)
    SELECT p_user, p_seq + row_number() OVER (), 1, made.id, 1, to_jsonb(made), '{}', p_actor.actor_id, p_actor.session_id, p_actor.request_id, v_now
      FROM unnest(v_tasks) AS made;
    INSERT INTO task.task_labels (user_id, label, completed, created_at, task_id)
    SELECT DISTINCT p_user, label, status = 3, v_now, id FROM unnest(v_tasks) CROSS JOIN unnest(labels) AS label;
    PERFORM task.count_tasks(p_user, v_pending, v_in_progress, v_completed);
    RETURN CASE WHEN p_all THEN v_tasks ELSE v_tasks[1:1] END;
END $$;

-- p_operations: as for task.create_tasks, with mask and versions beside it. Setting what is already so changes nothing and takes no number.
CREATE OR REPLACE FUNCTION task.update_tasks(
    p_user uuid, p_operations jsonb, p_seq bigint, p_actor task.actor, p_max_bytes integer, OUT o_tasks task.tasks[], OUT o_changed integer
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_op       task.operation;
    v_old      task.tasks;
    v_new      task.tasks;
    v_fields   text[];
    v_snapshot jsonb;
    v_bytes    bigint := 0;
    -- By status.
    v_counts bigint[] := '{0,0,0}';
BEGIN
    o_changed := 0;
    FOR v_n IN 0 .. jsonb_array_length(p_operations) - 1 LOOP
        v_op := jsonb_populate_record(NULL::task.operation, p_operations -> v_n);
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
            IF v_new.status <> v_old.status OR v_new.labels <> v_old.labels THEN
                v_new.completed_at := CASE WHEN v_new.status <> 3 THEN NULL WHEN v_old.status = 3 THEN v_old.completed_at ELSE v_new.updated_at END;
                UPDATE task.tasks
                   SET title = v_new.title, description = v_new.description, status = v_new.status, priority = v_new.priority,
                       due_date = v_new.due_date, labels = v_new.labels, updated_at = v_new.updated_at, completed_at = v_new.completed_at,
                       version = v_new.version
                 WHERE user_id = p_user AND id = v_op.id;
                v_counts[v_old.status] := v_counts[v_old.status] - 1;
                v_counts[v_new.status] := v_counts[v_new.status] + 1;
                IF v_new.labels <> v_old.labels OR (v_new.status = 3) <> (v_old.status = 3) THEN
                    PERFORM task.write_labels(p_user, v_op.id, v_old.created_at, v_old.labels, v_old.status = 3, v_new.labels, v_new.status = 3);
                END IF;
            ELSE
                UPDATE task.tasks
                   SET title = v_new.title, description = v_new.description, priority = v_new.priority, due_date = v_new.due_date,
                       updated_at = v_new.updated_at, version = v_new.version
                 WHERE user_id = p_user AND id = v_op.id;
            END IF;
            v_snapshot := to_jsonb(v_new);
            INSERT INTO task.changes (user_id, seq, kind, task_id, version, snapshot, changed_fields, actor_id, session_id, request_id, at)
            VALUES (p_user, p_seq + o_changed, 2, v_op.id, v_new.version, v_snapshot, v_fields,
                    p_actor.actor_id, p_actor.session_id, p_actor.request_id, v_new.updated_at);
        END IF;
        v_bytes := v_bytes + octet_length(v_new.title) + octet_length(v_new.description) + octet_length(v_new.labels::text);
        IF v_bytes > p_max_bytes THEN
            RAISE EXCEPTION USING ERRCODE = 'TM006', MESSAGE = v_op.n::text;
        END IF;
        o_tasks := o_tasks || v_new;
    END LOOP;
    IF v_counts <> '{0,0,0}' THEN
        PERFORM task.count_tasks(p_user, v_counts[1], v_counts[2], v_counts[3]);
    END IF;
END $$;

-- p_operations: [{n, id, versions}, …]. Moves the tasks to the bin (p_kind 3) or out of it (4). They are as they are then.
CREATE OR REPLACE FUNCTION task.move_tasks(p_user uuid, p_operations jsonb, p_seq bigint, p_kind smallint, p_actor task.actor)
RETURNS task.tasks[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_op    record;
    v_task  task.tasks;
    v_now   timestamptz := clock_timestamp();
    v_tasks task.tasks[];
    -- By status.
    v_counts bigint[] := '{0,0,0}';
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
        v_counts[v_task.status] := v_counts[v_task.status] + CASE WHEN p_kind = 3 THEN -1 ELSE 1 END;
        IF v_task.labels <> '{}' THEN
            PERFORM task.write_labels(p_user, v_task.id, v_task.created_at, CASE WHEN p_kind = 3 THEN v_task.labels ELSE '{}' END, v_task.status = 3,
                                      CASE WHEN p_kind = 3 THEN '{}' ELSE v_task.labels END, v_task.status = 3);
        END IF;
        PERFORM task.log_change(v_task, p_seq + 1 + v_op.n, p_kind, '{}', p_actor);
        v_tasks := v_tasks || v_task;
    END LOOP;
    PERFORM task.count_tasks(p_user, v_counts[1], v_counts[2], v_counts[3]);
    RETURN v_tasks;
END $$;

-- One write, after task.take_seqs has locked the counter: p_kind as in task.changes, all of p_operations or none. o_tasks: the tasks as they are then,
-- in the order of the operations; of a deletion none, and of a creation without a key the first alone: the others are what was asked for, of the same
-- moment.
-- p_seq: the last number that was used before. o_used: how many of the next ones this write has used.
-- p_generation, p_fenced: the state of the cache under which the write has set its fence, or has waited in OFF; null if no reader can know the tasks.
-- If the state is another one by now, the write is refused with TM007. The comparison comes after this transaction has an id, and whoever sets ON waits
-- for it. On PostgreSQL the lock of the counter has given it an id. On Citus that lock is on another server, so the id is taken here.
CREATE OR REPLACE FUNCTION task.execute(
    p_user uuid, p_kind smallint, p_operations jsonb, p_seq bigint, p_actor task.actor, p_key text, p_hash bytea, p_max_bytes integer,
    p_generation uuid, p_fenced boolean, OUT o_replayed boolean, OUT o_tasks task.tasks[], OUT o_used integer
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_id     xid8 := pg_current_xact_id();
    v_kept   task.idempotency_keys;
    v_answer jsonb;
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
            o_replayed := true;
            o_tasks := ARRAY(SELECT kept FROM jsonb_populate_recordset(NULL::task.tasks, v_kept.answer) AS kept);
            o_used := 0;
            RETURN;
        END IF;
    END IF;
    o_replayed := false;
    o_used := jsonb_array_length(p_operations);
    CASE p_kind
        WHEN 1 THEN o_tasks := task.create_tasks(p_user, p_operations, p_seq, p_actor, p_key IS NOT NULL);
        WHEN 2 THEN SELECT * INTO o_tasks, o_used FROM task.update_tasks(p_user, p_operations, p_seq, p_actor, p_max_bytes);
        ELSE o_tasks := task.move_tasks(p_user, p_operations, p_seq, p_kind, p_actor);
    END CASE;
    IF p_kind = 3 THEN
        o_tasks := '{}';
    END IF;
    IF p_key IS NOT NULL THEN
        v_answer := to_jsonb(o_tasks);
        INSERT INTO task.idempotency_keys (user_id, key, request_hash, answer, created_at)
        VALUES (p_user, p_key, p_hash, v_answer, clock_timestamp())
        ON CONFLICT (user_id, key) DO UPDATE SET request_hash = excluded.request_hash, answer = excluded.answer, created_at = excluded.created_at;
    END IF;
END $$;

-- Removes at most p_limit rows of a closed account from each table. Returns how many it removed. The lock of the counter excludes another call for the
-- account. Nobody else writes for it by now, except that task.sweep removes tasks from the bin, which are neither counted nor labelled.
CREATE OR REPLACE FUNCTION task.remove_rows(p_user uuid, p_limit integer) RETURNS integer LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    v_ids         uuid[];
    v_rows        integer;
    v_removed     integer;
    v_pending     bigint;
    v_in_progress bigint;
    v_completed   bigint;
BEGIN
    PERFORM FROM task.counters WHERE user_id = p_user AND closed_at IS NOT NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    SELECT coalesce(array_agg(id), '{}'), count(*) FILTER (WHERE deleted_at IS NULL AND status = 1),
           count(*) FILTER (WHERE deleted_at IS NULL AND status = 2), count(*) FILTER (WHERE deleted_at IS NULL AND status = 3)
      INTO v_ids, v_pending, v_in_progress, v_completed
      FROM (SELECT id, status, deleted_at FROM task.tasks WHERE user_id = p_user LIMIT p_limit) AS found;
    DELETE FROM task.task_labels WHERE user_id = p_user AND (label, completed, created_at, task_id) IN (
        SELECT unnest(labels), status = 3, created_at, id FROM task.tasks WHERE user_id = p_user AND id = ANY (v_ids));
    DELETE FROM task.tasks WHERE user_id = p_user AND id = ANY (v_ids);
    GET DIAGNOSTICS v_removed = ROW_COUNT;
    PERFORM task.count_tasks(p_user, -v_pending, -v_in_progress, -v_completed);
    DELETE FROM task.changes WHERE user_id = p_user AND seq IN (SELECT seq FROM task.changes WHERE user_id = p_user LIMIT p_limit);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_removed := v_removed + v_rows;
    DELETE FROM task.idempotency_keys WHERE user_id = p_user AND key IN (SELECT key FROM task.idempotency_keys WHERE user_id = p_user LIMIT p_limit);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_removed + v_rows;
END $$;

-- Removes what is kept no longer, at most p_limit rows from each table: tasks from the bin, answers under idempotency keys, the change log's beginning.
-- Nothing if another does it just now (a lock of this transaction, which also holds behind PgBouncer). Returns the number of rows of the largest part.
-- If a write has locked one of the rows, this waits for lock_timeout and then leaves the rows of that table to the next call. The time is less than
-- deadlock_timeout, so a deadlock ends this function and not a write.
CREATE OR REPLACE FUNCTION task.sweep(p_bin interval, p_changes interval, p_limit integer) RETURNS integer LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_custom_plan SET lock_timeout = '100ms' AS $$
DECLARE
    v_users uuid[];
    v_ids   uuid[];
    v_keys  text[];
    v_seqs  bigint[];
    v_rows  integer;
    v_most  integer := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('task sweep', 0)) THEN
        RETURN 0;
    END IF;
    SELECT array_agg(user_id), array_agg(id) INTO v_users, v_ids
      FROM (SELECT user_id, id FROM task.tasks WHERE deleted_at < now() - p_bin LIMIT p_limit) AS found;
    IF v_users IS NOT NULL THEN
        BEGIN
            DELETE FROM task.tasks AS t USING unnest(v_users, v_ids) AS found (user_id, id)
             WHERE t.user_id = found.user_id AND t.id = found.id AND t.deleted_at < now() - p_bin;
            GET DIAGNOSTICS v_most = ROW_COUNT;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END IF;
    SELECT array_agg(user_id), array_agg(key) INTO v_users, v_keys
      FROM (SELECT user_id, key FROM task.idempotency_keys WHERE created_at < now() - interval '24 hours' LIMIT p_limit) AS found;
    IF v_users IS NOT NULL THEN
        BEGIN
            DELETE FROM task.idempotency_keys AS k USING unnest(v_users, v_keys) AS found (user_id, key)
             WHERE k.user_id = found.user_id AND k.key = found.key AND k.created_at < now() - interval '24 hours';
            GET DIAGNOSTICS v_rows = ROW_COUNT;
            v_most := greatest(v_most, v_rows);
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END IF;
    -- No write changes a row of the log.
    SELECT array_agg(user_id), array_agg(seq) INTO v_users, v_seqs
      FROM (SELECT user_id, seq FROM task.changes WHERE at < now() - p_changes ORDER BY at LIMIT p_limit) AS found;
    IF v_users IS NOT NULL THEN
        DELETE FROM task.changes AS c USING unnest(v_users, v_seqs) AS found (user_id, seq) WHERE c.user_id = found.user_id AND c.seq = found.seq;
        GET DIAGNOSTICS v_rows = ROW_COUNT;
        v_most := greatest(v_most, v_rows);
    END IF;
    RETURN v_most;
END $$;
