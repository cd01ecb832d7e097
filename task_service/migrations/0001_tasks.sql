-- Tasks, and the log of their changes. Every table leads with user_id: it is what the schema would be sharded by.

-- The counter of a user's changes. Every write locks this row first, so the changes of one user are in the order of their commits, without a gap.
CREATE TABLE task.counters (
    user_id  uuid PRIMARY KEY,
    last_seq bigint NOT NULL
);

CREATE TABLE task.tasks (
    user_id      uuid        NOT NULL,
    id           uuid        NOT NULL,
    title        text        NOT NULL CHECK (char_length(title) BETWEEN 1 AND 200),
    description  text        NOT NULL CHECK (char_length(description) <= 10000),
    status       smallint    NOT NULL CHECK (status BETWEEN 1 AND 3),   -- as in task.proto: 1 PENDING, 2 IN_PROGRESS, 3 COMPLETED
    priority     smallint    NOT NULL CHECK (priority BETWEEN 1 AND 5),
    due_date     timestamptz,
    labels       text[]      NOT NULL CHECK (cardinality(labels) <= 20),
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    completed_at timestamptz,
    deleted_at   timestamptz,
    version      bigint      NOT NULL,
    PRIMARY KEY (user_id, id),
    CHECK ((status = 3) = (completed_at IS NOT NULL))
);

CREATE INDEX tasks_by_created_at ON task.tasks (user_id, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX tasks_by_status ON task.tasks (user_id, status, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX tasks_by_priority ON task.tasks (user_id, priority, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX tasks_by_due_date ON task.tasks (user_id, COALESCE(due_date, 'infinity'), id) WHERE deleted_at IS NULL;

CREATE TABLE task.changes (
    user_id        uuid        NOT NULL,
    seq            bigint      NOT NULL,
    kind           smallint    NOT NULL CHECK (kind BETWEEN 1 AND 4),   -- 1 CREATED, 2 UPDATED, 3 DELETED, 4 RESTORED
    task_id        uuid        NOT NULL,
    version        bigint      NOT NULL,
    snapshot       jsonb       NOT NULL,                                -- the task as this change left it
    changed_fields text[]      NOT NULL,
    actor_id       uuid        NOT NULL,
    session_id     uuid        NOT NULL,
    request_id     text        NOT NULL,
    at             timestamptz NOT NULL,
    PRIMARY KEY (user_id, seq)
);

-- Who writes, and by which call.
CREATE TYPE task.actor AS (actor_id uuid, session_id uuid, request_id text);

-- The functions below are VOLATILE plpgsql and not single statements with CTEs: after the wait for the counter's lock each statement sees what was
-- committed meanwhile, where a single statement would still see its old snapshot.

CREATE FUNCTION task.next_seq(p_user uuid) RETURNS bigint LANGUAGE sql VOLATILE AS $$
    INSERT INTO task.counters AS c (user_id, last_seq) VALUES (p_user, 1)
    ON CONFLICT (user_id) DO UPDATE SET last_seq = c.last_seq + 1
    RETURNING last_seq
$$;

-- Takes back the number of a write that changed nothing. The lock is still held, so nobody has taken a later one.
CREATE FUNCTION task.return_seq(p_user uuid) RETURNS void LANGUAGE sql VOLATILE AS $$
    UPDATE task.counters SET last_seq = last_seq - 1 WHERE user_id = p_user
$$;

CREATE FUNCTION task.log_change(p_task task.tasks, p_seq bigint, p_kind smallint, p_fields text[], p_actor task.actor)
RETURNS void LANGUAGE sql VOLATILE AS $$
    INSERT INTO task.changes (user_id, seq, kind, task_id, version, snapshot, changed_fields, actor_id, session_id, request_id, at)
    VALUES (p_task.user_id, p_seq, p_kind, p_task.id, p_task.version, to_jsonb(p_task), p_fields,
            p_actor.actor_id, p_actor.session_id, p_actor.request_id, p_task.updated_at)
$$;

-- The new task, as one row.
CREATE FUNCTION task.create_task(
    p_user uuid, p_id uuid, p_title text, p_description text, p_status smallint, p_priority smallint, p_due_date timestamptz, p_labels text[],
    p_actor task.actor
) RETURNS SETOF task.tasks LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_seq  bigint := task.next_seq(p_user);
    v_now  timestamptz := clock_timestamp();
    v_task task.tasks;
BEGIN
    INSERT INTO task.tasks (user_id, id, title, description, status, priority, due_date, labels, created_at, updated_at, completed_at, version)
    VALUES (p_user, p_id, p_title, p_description, p_status, p_priority, p_due_date, p_labels, v_now, v_now,
            CASE WHEN p_status = 3 THEN v_now END, 1)
    RETURNING * INTO v_task;
    PERFORM task.log_change(v_task, v_seq, 1::smallint, '{}', p_actor);
    RETURN NEXT v_task;
END $$;

-- The task as it is after the fields named by p_mask were set, as one row; no row if there is none. Setting what is already so changes nothing.
CREATE FUNCTION task.update_task(
    p_user uuid, p_id uuid, p_mask text[],
    p_title text, p_description text, p_status smallint, p_priority smallint, p_due_date timestamptz, p_labels text[],
    p_actor task.actor
) RETURNS SETOF task.tasks LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_seq    bigint := task.next_seq(p_user);
    v_old    task.tasks;
    v_new    task.tasks;
    v_fields text[] := '{}';
BEGIN
    SELECT * INTO v_old FROM task.tasks WHERE user_id = p_user AND id = p_id AND deleted_at IS NULL;
    IF NOT FOUND THEN
        PERFORM task.return_seq(p_user);
        RETURN;
    END IF;
    v_new := v_old;
    IF 'title' = ANY (p_mask) THEN v_new.title := p_title; END IF;
    IF 'description' = ANY (p_mask) THEN v_new.description := p_description; END IF;
    IF 'status' = ANY (p_mask) THEN v_new.status := p_status; END IF;
    IF 'priority' = ANY (p_mask) THEN v_new.priority := p_priority; END IF;
    IF 'due_date' = ANY (p_mask) THEN v_new.due_date := p_due_date; END IF;
    IF 'labels' = ANY (p_mask) THEN v_new.labels := p_labels; END IF;
    IF v_new.title <> v_old.title THEN v_fields := v_fields || 'title'::text; END IF;
    IF v_new.description <> v_old.description THEN v_fields := v_fields || 'description'::text; END IF;
    IF v_new.status <> v_old.status THEN v_fields := v_fields || 'status'::text; END IF;
    IF v_new.priority <> v_old.priority THEN v_fields := v_fields || 'priority'::text; END IF;
    IF v_new.due_date IS DISTINCT FROM v_old.due_date THEN v_fields := v_fields || 'due_date'::text; END IF;
    IF v_new.labels <> v_old.labels THEN v_fields := v_fields || 'labels'::text; END IF;
    IF v_fields = '{}' THEN
        PERFORM task.return_seq(p_user);
        RETURN NEXT v_old;
        RETURN;
    END IF;
    v_new.version := v_old.version + 1;
    -- Never backwards, whatever the clock does.
    v_new.updated_at := greatest(clock_timestamp(), v_old.updated_at);
    v_new.completed_at := CASE WHEN v_new.status <> 3 THEN NULL WHEN v_old.status = 3 THEN v_old.completed_at ELSE v_new.updated_at END;
    UPDATE task.tasks
       SET title = v_new.title, description = v_new.description, status = v_new.status, priority = v_new.priority, due_date = v_new.due_date,
           labels = v_new.labels, updated_at = v_new.updated_at, completed_at = v_new.completed_at, version = v_new.version
     WHERE user_id = p_user AND id = p_id;
    PERFORM task.log_change(v_new, v_seq, 2::smallint, v_fields, p_actor);
    RETURN NEXT v_new;
END $$;

-- The task as it was deleted, as one row; no row if there is none.
CREATE FUNCTION task.delete_task(p_user uuid, p_id uuid, p_actor task.actor) RETURNS SETOF task.tasks LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_seq  bigint := task.next_seq(p_user);
    v_now  timestamptz := clock_timestamp();
    v_task task.tasks;
BEGIN
    UPDATE task.tasks
       SET deleted_at = greatest(v_now, updated_at), updated_at = greatest(v_now, updated_at), version = version + 1
     WHERE user_id = p_user AND id = p_id AND deleted_at IS NULL
    RETURNING * INTO v_task;
    IF NOT FOUND THEN
        PERFORM task.return_seq(p_user);
        RETURN;
    END IF;
    PERFORM task.log_change(v_task, v_seq, 3::smallint, '{}', p_actor);
    RETURN NEXT v_task;
END $$;
