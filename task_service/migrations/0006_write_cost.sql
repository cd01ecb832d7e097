-- Cheaper writes, and the numbers of a user's tasks by status (docs/adr/0018-write-cost.md).

-- Waits for the writes that run, and lets no other write run until this transaction ends. A write that waits here has begun in the functions from
-- before, and continues in those below: task.write of before calls them by the same names. Lists lock the two tables in the same order.
LOCK TABLE task.counters IN SHARE ROW EXCLUSIVE MODE;
LOCK TABLE task.tasks IN SHARE ROW EXCLUSIVE MODE;

-- Counted before the counters are locked against reading too.
CREATE TEMPORARY TABLE counted ON COMMIT DROP AS
SELECT user_id, count(*) FILTER (WHERE status = 1) AS pending, count(*) FILTER (WHERE status = 2) AS in_progress,
       count(*) FILTER (WHERE status = 3) AS completed
  FROM task.tasks WHERE deleted_at IS NULL GROUP BY user_id;

-- The numbers of tasks that are not in the bin. Only the functions below write them, in the transaction that changes the tasks.
ALTER TABLE task.counters
    ADD COLUMN pending     bigint NOT NULL DEFAULT 0,
    ADD COLUMN in_progress bigint NOT NULL DEFAULT 0,
    ADD COLUMN completed   bigint NOT NULL DEFAULT 0;
-- Room in each page for the next version of a row, so that a write of the counter writes to no index. A tenth of a page of tasks holds several tasks.
ALTER TABLE task.counters SET (fillfactor = 50);
ALTER TABLE task.tasks SET (fillfactor = 90);

UPDATE task.counters AS c SET pending = counted.pending, in_progress = counted.in_progress, completed = counted.completed
  FROM counted WHERE counted.user_id = c.user_id;

-- PostgreSQL parses the condition of a trigger at each statement that could fire it. It does not for a statement that sets none of the columns.
CREATE OR REPLACE TRIGGER keep_labels_of_changed AFTER UPDATE OF labels, status, deleted_at, created_at, id, user_id ON task.tasks FOR EACH ROW
    WHEN ((OLD.labels <> '{}' OR NEW.labels <> '{}') AND (OLD.labels, OLD.status = 3, OLD.deleted_at, OLD.created_at, OLD.id, OLD.user_id)
          IS DISTINCT FROM (NEW.labels, NEW.status = 3, NEW.deleted_at, NEW.created_at, NEW.id, NEW.user_id))
    EXECUTE FUNCTION task.keep_labels();
-- task.create_tasks does the same, but only for tasks with labels.
DROP TRIGGER keep_labels_of_new ON task.tasks;
DROP FUNCTION task.keep_labels_of_new();

-- An operation of a write, see task.update_tasks. `n` is its index.
CREATE TYPE task.operation AS (
    n integer, id uuid, versions bigint[], mask text[],
    title text, description text, status smallint, priority smallint, due_date timestamptz, labels text[]
);

-- Locks the user's counter until the end of the transaction and gives out p_count numbers: those behind the one that it returns.
-- The lock of the counter's row would be enough. But all transactions that wait for a row wake up whenever it changes, and all but one wait again.
-- Those that wait for an advisory lock wake up one by one.
CREATE OR REPLACE FUNCTION task.take_seqs(p_user uuid, p_count integer) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_last bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(uuid_hash_extended(p_user, 0));
    UPDATE task.counters SET last_seq = last_seq + p_count WHERE user_id = p_user AND closed_at IS NULL RETURNING last_seq INTO v_last;
    IF NOT FOUND THEN
        INSERT INTO task.counters AS c (user_id, last_seq) VALUES (p_user, p_count)
        ON CONFLICT (user_id) DO UPDATE SET last_seq = c.last_seq + p_count WHERE c.closed_at IS NULL
        RETURNING last_seq INTO v_last;
    END IF;
    IF v_last IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'TM001', MESSAGE = '0';
    END IF;
    RETURN v_last - p_count;
END $$;

-- Adds to the numbers of the user's tasks by status. The counter is locked already.
CREATE FUNCTION task.count_tasks(p_user uuid, p_pending bigint, p_in_progress bigint, p_completed bigint) RETURNS void LANGUAGE sql VOLATILE AS $$
    UPDATE task.counters SET pending = pending + p_pending, in_progress = in_progress + p_in_progress, completed = completed + p_completed
     WHERE user_id = p_user
$$;

-- The same as task.create_tasks for one task. Its statements read no set, which makes the whole write a tenth cheaper.
CREATE FUNCTION task.create_task(p_user uuid, p_operation jsonb, p_seq bigint, p_actor task.actor) RETURNS task.tasks LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now  timestamptz := clock_timestamp();
    v_op   task.operation := jsonb_populate_record(NULL::task.operation, p_operation);
    v_task task.tasks;
BEGIN
    INSERT INTO task.tasks (user_id, id, title, description, status, priority, due_date, labels, created_at, updated_at, completed_at, version)
    VALUES (p_user, v_op.id, v_op.title, v_op.description, v_op.status, v_op.priority, v_op.due_date, v_op.labels, v_now, v_now,
            CASE WHEN v_op.status = 3 THEN v_now END, 1)
    RETURNING * INTO v_task;
    INSERT INTO task.changes (user_id, seq, kind, task_id, version, snapshot, changed_fields, actor_id, session_id, request_id, at)
    VALUES (p_user, p_seq + 1, 1, v_task.id, 1, to_jsonb(v_task), '{}', p_actor.actor_id, p_actor.session_id, p_actor.request_id, v_now);
    IF v_task.labels <> '{}' THEN
        INSERT INTO task.task_labels (user_id, label, completed, created_at, task_id)
        SELECT DISTINCT p_user, label, v_task.status = 3, v_now, v_task.id FROM unnest(v_task.labels) AS label;
    END IF;
    PERFORM task.count_tasks(p_user, (v_task.status = 1)::integer, (v_task.status = 2)::integer, (v_task.status = 3)::integer);
    RETURN v_task;
END $$;

-- p_operations: [{n, id, title, description, status, priority, due_date, labels}, …], n from 0. The new tasks, in that order, or the first of them.
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
    ), labelled AS (
        INSERT INTO task.task_labels (user_id, label, completed, created_at, task_id)
        SELECT DISTINCT p_user, label, status = 3, v_now, id FROM operation CROSS JOIN unnest(labels) AS label
    )
    SELECT (SELECT array_agg(made.task ORDER BY n) FROM made JOIN operation USING (id) WHERE p_all OR n = 0),
           count(*) FILTER (WHERE status = 1), count(*) FILTER (WHERE status = 2), count(*) FILTER (WHERE status = 3)
      INTO v_tasks, v_pending, v_in_progress, v_completed
      FROM operation;
    PERFORM task.count_tasks(p_user, v_pending, v_in_progress, v_completed);
    RETURN v_tasks;
END $$;

-- p_operations: as for task.create_tasks, with mask and versions beside it. Setting what is already so changes nothing and takes no number.
CREATE OR REPLACE FUNCTION task.update_tasks(
    p_user uuid, p_operations jsonb, p_seq bigint, p_actor task.actor, p_max_bytes integer, OUT o_tasks task.tasks[], OUT o_changed integer
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_op     task.operation;
    v_old    task.tasks;
    v_new    task.tasks;
    v_fields text[];
    v_bytes  bigint := 0;
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
            ELSE
                UPDATE task.tasks
                   SET title = v_new.title, description = v_new.description, priority = v_new.priority, due_date = v_new.due_date,
                       updated_at = v_new.updated_at, version = v_new.version
                 WHERE user_id = p_user AND id = v_op.id;
            END IF;
            INSERT INTO task.changes (user_id, seq, kind, task_id, version, snapshot, changed_fields, actor_id, session_id, request_id, at)
            VALUES (p_user, p_seq + o_changed, 2, v_op.id, v_new.version, to_jsonb(v_new), v_fields,
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
-- If the state is another one by now, the write is refused with TM007. The comparison comes after the counter's lock, so this transaction has an id by
-- then, and whoever sets ON waits for it.
CREATE FUNCTION task.execute(
    p_user uuid, p_kind smallint, p_operations jsonb, p_seq bigint, p_actor task.actor, p_key text, p_hash bytea, p_max_bytes integer,
    p_generation uuid, p_fenced boolean, OUT o_replayed boolean, OUT o_tasks task.tasks[], OUT o_used integer
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_kept task.idempotency_keys;
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
        INSERT INTO task.idempotency_keys (user_id, key, request_hash, answer, created_at)
        VALUES (p_user, p_key, p_hash, to_jsonb(o_tasks), clock_timestamp())
        ON CONFLICT (user_id, key) DO UPDATE SET request_hash = excluded.request_hash, answer = excluded.answer, created_at = excluded.created_at;
    END IF;
END $$;

-- One write in a transaction of its own: see task.execute. A replayed answer that has no task is one row without a task.
-- VOLATILE plpgsql and not one statement: after the wait for the counter's lock each statement sees what was committed meanwhile, where a single
-- statement would still see its old snapshot.
CREATE OR REPLACE FUNCTION task.write(
    p_user uuid, p_kind smallint, p_operations jsonb, p_actor task.actor, p_key text, p_hash bytea, p_max_bytes integer, p_generation uuid, p_fenced boolean
) RETURNS TABLE (o_replayed boolean, o_task task.tasks) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_count integer := jsonb_array_length(p_operations);
    v_seq   bigint := task.take_seqs(p_user, v_count);
    v_used  integer;
    v_tasks task.tasks[];
BEGIN
    SELECT * INTO o_replayed, v_tasks, v_used
      FROM task.execute(p_user, p_kind, p_operations, v_seq, p_actor, p_key, p_hash, p_max_bytes, p_generation, p_fenced);
    IF v_used < v_count THEN
        PERFORM task.return_seqs(p_user, v_count - v_used);
    END IF;
    FOREACH o_task IN ARRAY v_tasks LOOP
        RETURN NEXT;
    END LOOP;
    IF o_replayed AND v_tasks = '{}' THEN
        o_task := NULL;
        RETURN NEXT;
    END IF;
END $$;

-- Several writes of one user, one after the other, in one transaction. Each is as task.write would do it alone: one that is refused changes nothing,
-- and the others are not affected. p_writes: [{n, kind, operations, session_id, request_id, key, hash, generation, fenced}, …], n from 0, hash in
-- hexadecimal digits. o_write is the n of the write; of each write there is at least one row. o_error, o_message: what it was refused with, or null.
CREATE FUNCTION task.write_all(p_user uuid, p_writes jsonb, p_max_bytes integer)
RETURNS TABLE (o_write integer, o_error text, o_message text, o_replayed boolean, o_task task.tasks) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    -- The last number that was taken, and the last one that was used.
    v_last  bigint;
    v_seq   bigint;
    v_used  integer;
    v_write record;
    v_tasks task.tasks[];
BEGIN
    SELECT sum(jsonb_array_length(each -> 'operations')) INTO v_last FROM jsonb_array_elements(p_writes) AS each;
    v_seq := task.take_seqs(p_user, v_last::integer);
    v_last := v_seq + v_last;
    FOR v_write IN
        SELECT * FROM jsonb_to_recordset(p_writes) AS w (
            n integer, kind smallint, operations jsonb, session_id uuid, request_id text, key text, hash text, generation uuid, fenced boolean)
         ORDER BY n
    LOOP
        o_write := v_write.n;
        o_error := NULL;
        o_message := NULL;
        BEGIN
            SELECT * INTO o_replayed, v_tasks, v_used
              FROM task.execute(p_user, v_write.kind, v_write.operations, v_seq, ROW(p_user, v_write.session_id, v_write.request_id)::task.actor,
                                v_write.key, decode(v_write.hash, 'hex'), p_max_bytes, v_write.generation, v_write.fenced);
            v_seq := v_seq + v_used;
        EXCEPTION WHEN OTHERS THEN
            -- What is wrong with this write alone: a refusal, or its values. Anything else ends them all.
            IF left(SQLSTATE, 2) NOT IN ('TM', '22', '23') THEN
                RAISE;
            END IF;
            o_error := SQLSTATE;
            o_message := SQLERRM;
            o_replayed := false;
            v_tasks := '{}';
        END;
        FOREACH o_task IN ARRAY v_tasks LOOP
            RETURN NEXT;
        END LOOP;
        IF v_tasks = '{}' THEN
            o_task := NULL;
            RETURN NEXT;
        END IF;
    END LOOP;
    IF v_seq < v_last THEN
        PERFORM task.return_seqs(p_user, (v_last - v_seq)::integer);
    END IF;
END $$;

-- Removes at most p_limit rows of a closed account from each table. Returns how many it removed.
CREATE OR REPLACE FUNCTION task.remove_rows(p_user uuid, p_limit integer) RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_rows        integer;
    v_removed     integer;
    v_pending     bigint;
    v_in_progress bigint;
    v_completed   bigint;
BEGIN
    PERFORM FROM task.counters WHERE user_id = p_user AND closed_at IS NOT NULL;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    WITH removed AS (
        DELETE FROM task.tasks WHERE user_id = p_user AND id IN (SELECT id FROM task.tasks WHERE user_id = p_user LIMIT p_limit)
        RETURNING CASE WHEN deleted_at IS NULL THEN status END AS counted_as
    )
    SELECT count(*), count(*) FILTER (WHERE counted_as = 1), count(*) FILTER (WHERE counted_as = 2), count(*) FILTER (WHERE counted_as = 3)
      INTO v_removed, v_pending, v_in_progress, v_completed FROM removed;
    PERFORM task.count_tasks(p_user, -v_pending, -v_in_progress, -v_completed);
    DELETE FROM task.changes WHERE user_id = p_user AND seq IN (SELECT seq FROM task.changes WHERE user_id = p_user LIMIT p_limit);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_removed := v_removed + v_rows;
    DELETE FROM task.idempotency_keys WHERE user_id = p_user AND key IN (SELECT key FROM task.idempotency_keys WHERE user_id = p_user LIMIT p_limit);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_removed + v_rows;
END $$;
