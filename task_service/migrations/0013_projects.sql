-- Projects, subtasks, order, days, recurrence and reminders (docs/data-model.md).

-- Waits for the writes that run, and lets no other write run until this transaction ends: see 0006_write_cost.sql. A write that waits here continues
-- in the functions below: task.write of before calls task.execute by the same name and arguments.
LOCK TABLE task.counters IN SHARE ROW EXCLUSIVE MODE;
LOCK TABLE task.tasks IN SHARE ROW EXCLUSIVE MODE;

CREATE TABLE task.projects (
    user_id     uuid        NOT NULL,
    id          uuid        NOT NULL,
    name        text        NOT NULL CHECK (char_length(name) BETWEEN 1 AND 100),
    description text        NOT NULL CHECK (char_length(description) <= 2000),
    color       text        NOT NULL,
    position    text        COLLATE "C" NOT NULL,
    archived_at timestamptz,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    deleted_at  timestamptz,
    version     bigint      NOT NULL,
    PRIMARY KEY (user_id, id)
);
CREATE INDEX projects_by_deleted_at ON task.projects (deleted_at) WHERE deleted_at IS NOT NULL;

-- All nullable and without a default, so no row is rewritten.
ALTER TABLE task.tasks
    ADD COLUMN project_id   uuid,                -- null: the inbox
    ADD COLUMN parent_id    uuid,
    ADD COLUMN position     text COLLATE "C",    -- null: '0' and the id, for a task from before
    -- If due_on is set, due_date is the midnight at which it ends, and the API has no due_date.
    ADD COLUMN due_on       date,
    ADD COLUMN time_zone    text,
    ADD COLUMN recurrence   jsonb,               -- see task_service/tasks/series.py
    ADD COLUMN previous_id  uuid,
    ADD COLUMN next_id      uuid,
    ADD COLUMN reminders    jsonb,               -- [{"at": …} or {"before_due": seconds}, …]
    ADD COLUMN deleted_with uuid;                -- the task or the project that took it to the bin

-- The reminders that have not fired yet.
CREATE TABLE task.reminders (
    user_id uuid        NOT NULL,
    task_id uuid        NOT NULL,
    fire_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, task_id, fire_at)
);
CREATE INDEX reminders_by_fire_at ON task.reminders (fire_at);

-- kind 6: REMINDER. A change of a project has the project's id as task_id, and its snapshot.
ALTER TABLE task.changes
    ADD COLUMN is_project   boolean NOT NULL DEFAULT false,
    ADD COLUMN by_api_token boolean NOT NULL DEFAULT false;   -- whether session_id is the id of an API token
ALTER TABLE task.changes DROP CONSTRAINT changes_kind_check;
ALTER TABLE task.changes ADD CONSTRAINT changes_kind_check CHECK (kind IN (1, 2, 3, 4, 6)) NOT VALID;

ALTER TYPE task.operation
    ADD ATTRIBUTE project_id uuid, ADD ATTRIBUTE parent_id uuid, ADD ATTRIBUTE due_on date, ADD ATTRIBUTE time_zone text,
    ADD ATTRIBUTE recurrence jsonb, ADD ATTRIBUTE reminders jsonb,
    -- Of an update: the version of the task from which the caller has computed due_date, recurrence and next.
    ADD ATTRIBUTE basis bigint, ADD ATTRIBUTE next jsonb,
    -- Of a move.
    ADD ATTRIBUTE moves_project boolean, ADD ATTRIBUTE moves_parent boolean, ADD ATTRIBUTE before_id uuid, ADD ATTRIBUTE after_id uuid;

-- Who writes, by which call. (task.actor cannot get another attribute, because code from before casts rows to it.)
CREATE TYPE task.author AS (actor_id uuid, session_id uuid, request_id text, by_api_token boolean);

-- What a write is refused with, in addition to 0004_writes.sql: TM008 it changes tasks that the caller has not fenced, TM009 the basis is another one,
-- TM010 there is no such parent, TM011 no such project, TM012 the project is archived, TM013 too deep, TM014 the parent has too many subtasks, TM015 the
-- task has too many descendants, TM016 a cycle, TM017 there is no such sibling, TM018 the parent is in the bin, TM019 the project is in the bin, TM020 a
-- recurrence without a due date.
CREATE FUNCTION task.refuse(p_code text, p_n integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = p_code, MESSAGE = p_n::text;
END $$;

-- Positions. The digits are 0-9, A-Z and a-z, in the order of bytes. A new task comes last: its position is made from the number of its change, and
-- numbers only grow. It begins with a letter that is the number of its digits, so that texts have the order of numbers.
CREATE FUNCTION task.position_of(p_seq bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT chr(96 + length(to_hex(p_seq))) || to_hex(p_seq)
$$;

-- A position between two others; null if there is none. It does not end with 0, so there is one before it.
CREATE FUNCTION task.position_between(p_low text, p_high text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_digits CONSTANT text := '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
    v_open   boolean := false;
    v_low    integer;
    v_high   integer;
    v_key    text := '';
BEGIN
    FOR v_n IN 1 .. length(p_low) + length(p_high) + 1 LOOP
        v_low := greatest(strpos(v_digits, substr(p_low, v_n, 1)) - 1, 0);
        v_high := CASE WHEN v_open THEN 62 ELSE strpos(v_digits, substr(p_high, v_n, 1)) - 1 END;
        IF v_n > length(p_low) THEN
            v_low := 0;
        END IF;
        IF NOT v_open AND (v_n > length(p_high) OR v_high < v_low) THEN
            RETURN NULL;
        END IF;
        IF (v_low + v_high) / 2 > v_low THEN
            RETURN v_key || substr(v_digits, (v_low + v_high) / 2 + 1, 1);
        END IF;
        v_key := v_key || substr(v_digits, v_low + 1, 1);
        v_open := v_open OR v_high > v_low;
    END LOOP;
    RETURN NULL;
END $$;

-- p_count positions between two others, in order, spread evenly; null if there are none.
CREATE FUNCTION task.positions_between(p_low text, p_high text, p_count integer) RETURNS text[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_middle text;
BEGIN
    IF p_count = 0 THEN
        RETURN '{}';
    END IF;
    v_middle := task.position_between(p_low, p_high);
    IF v_middle IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN task.positions_between(p_low, v_middle, p_count / 2) || v_middle || task.positions_between(v_middle, p_high, p_count - p_count / 2 - 1);
END $$;

-- The times at which a task reminds.
CREATE FUNCTION task.times_of(p_reminders jsonb, p_due timestamptz) RETURNS timestamptz[] LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(array_agg(at) FILTER (WHERE at IS NOT NULL), '{}') FROM (
        SELECT coalesce((each ->> 'at')::timestamptz, p_due - (each ->> 'before_due')::integer * interval '1 second') AS at
          FROM jsonb_array_elements(p_reminders) AS each) AS times
$$;

-- Sets the times at which the task reminds. One that has passed and has not fired yet stays, and a new one that has passed is left out.
CREATE FUNCTION task.schedule(p_user uuid, p_id uuid, p_times timestamptz[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_at  timestamptz;
BEGIN
    DELETE FROM task.reminders WHERE user_id = p_user AND task_id = p_id AND fire_at <> ALL (p_times);
    FOREACH v_at IN ARRAY p_times LOOP
        IF v_at > v_now THEN
            INSERT INTO task.reminders (user_id, task_id, fire_at) VALUES (p_user, p_id, v_at) ON CONFLICT DO NOTHING;
        END IF;
    END LOOP;
END $$;

CREATE FUNCTION task.log_change(p_task task.tasks, p_seq bigint, p_kind smallint, p_fields text[], p_actor task.author)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_snapshot jsonb := jsonb_strip_nulls(to_jsonb(p_task));
BEGIN
    INSERT INTO task.changes (user_id, seq, kind, task_id, version, snapshot, changed_fields, actor_id, session_id, request_id, at, by_api_token)
    VALUES (p_task.user_id, p_seq, p_kind, p_task.id, p_task.version, v_snapshot, p_fields,
            p_actor.actor_id, p_actor.session_id, p_actor.request_id, p_task.updated_at, p_actor.by_api_token);
END $$;

-- Refuses a project to which no task can be added.
CREATE FUNCTION task.require_open(p_user uuid, p_project uuid, p_n integer) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_archived_at timestamptz;
BEGIN
    SELECT archived_at INTO v_archived_at FROM task.projects WHERE user_id = p_user AND id = p_project AND deleted_at IS NULL;
    IF NOT FOUND THEN
        PERFORM task.refuse('TM011', p_n);
    END IF;
    IF v_archived_at IS NOT NULL THEN
        PERFORM task.refuse('TM012', p_n);
    END IF;
END $$;

-- The project of a task that can get p_count more subtasks, with p_levels levels from them on.
CREATE FUNCTION task.project_of_parent(p_user uuid, p_parent uuid, p_levels integer, p_count integer, p_n integer)
RETURNS uuid LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_project  uuid;
    v_up       uuid;
    v_levels   integer := p_levels + 1;
    v_children bigint;
BEGIN
    SELECT project_id, parent_id INTO v_project, v_up FROM task.tasks WHERE user_id = p_user AND id = p_parent AND deleted_at IS NULL;
    IF NOT FOUND THEN
        PERFORM task.refuse('TM010', p_n);
    END IF;
    WHILE v_up IS NOT NULL AND v_levels <= 5 LOOP
        v_levels := v_levels + 1;
        SELECT parent_id INTO v_up FROM task.tasks WHERE user_id = p_user AND id = v_up;
    END LOOP;
    IF v_levels > 5 THEN
        PERFORM task.refuse('TM013', p_n);
    END IF;
    SELECT count(*) INTO v_children FROM task.tasks WHERE user_id = p_user AND parent_id = p_parent AND deleted_at IS NULL;
    IF v_children + p_count > 500 THEN
        PERFORM task.refuse('TM014', p_n);
    END IF;
    RETURN v_project;
END $$;

-- The subtasks of a task at all levels, without the task itself, the deepest first: those that are not in the bin, or those that p_with took to it.
-- o_levels: how many levels.
CREATE FUNCTION task.descendants(p_user uuid, p_id uuid, p_with uuid, OUT o_ids uuid[], OUT o_levels integer) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_level uuid[] := ARRAY[p_id];
BEGIN
    o_ids := '{}';
    o_levels := 0;
    LOOP
        IF p_with IS NULL THEN
            v_level := ARRAY(SELECT id FROM task.tasks WHERE user_id = p_user AND parent_id = ANY (v_level) AND deleted_at IS NULL ORDER BY id);
        ELSE
            v_level := ARRAY(SELECT id FROM task.tasks WHERE user_id = p_user AND parent_id = ANY (v_level) AND deleted_with = p_with ORDER BY id);
        END IF;
        EXIT WHEN v_level = '{}' OR o_levels = 5;
        o_levels := o_levels + 1;
        o_ids := v_level || o_ids;
    END LOOP;
END $$;

-- See 0010_citus.sql. p_operation also has project_id, parent_id, due_on, time_zone, recurrence and reminders, if the task has them.
CREATE FUNCTION task.create_task(p_user uuid, p_operation jsonb, p_seq bigint, p_actor task.author)
RETURNS task.tasks LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now      timestamptz := clock_timestamp();
    v_op       task.operation := jsonb_populate_record(NULL::task.operation, p_operation);
    v_task     task.tasks;
    v_snapshot jsonb;
BEGIN
    IF v_op.parent_id IS NOT NULL THEN
        v_op.project_id := task.project_of_parent(p_user, v_op.parent_id, 1, 1, v_op.n);
    END IF;
    IF v_op.project_id IS NOT NULL THEN
        PERFORM task.require_open(p_user, v_op.project_id, v_op.n);
    END IF;
    INSERT INTO task.tasks (user_id, id, title, description, status, priority, due_date, labels, created_at, updated_at, completed_at, version,
                            project_id, parent_id, position, due_on, time_zone, recurrence, reminders)
    VALUES (p_user, v_op.id, v_op.title, v_op.description, v_op.status, v_op.priority, v_op.due_date, v_op.labels, v_now, v_now,
            CASE WHEN v_op.status = 3 THEN v_now END, 1,
            v_op.project_id, v_op.parent_id, task.position_of(p_seq + 1), v_op.due_on, v_op.time_zone, v_op.recurrence, v_op.reminders)
    RETURNING * INTO v_task;
    v_snapshot := jsonb_strip_nulls(to_jsonb(v_task));
    INSERT INTO task.changes (user_id, seq, kind, task_id, version, snapshot, changed_fields, actor_id, session_id, request_id, at, by_api_token)
    VALUES (p_user, p_seq + 1, 1, v_task.id, 1, v_snapshot, '{}', p_actor.actor_id, p_actor.session_id, p_actor.request_id, v_now,
            p_actor.by_api_token);
    IF v_task.labels <> '{}' THEN
        PERFORM task.write_labels(p_user, v_task.id, v_now, '{}', false, v_task.labels, v_task.status = 3);
    END IF;
    IF v_task.reminders IS NOT NULL AND v_task.status <> 3 THEN
        PERFORM task.schedule(p_user, v_task.id, task.times_of(v_task.reminders, v_task.due_date));
    END IF;
    PERFORM task.count_tasks(p_user, (v_task.status = 1)::integer, (v_task.status = 2)::integer, (v_task.status = 3)::integer);
    RETURN v_task;
END $$;

-- The projects of the new tasks of a batch that have a parent, by the parent's id. Refuses what task.create_task refuses.
CREATE FUNCTION task.projects_of_parents(p_user uuid, p_operations jsonb) RETURNS jsonb LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_each     record;
    v_project  uuid;
    v_projects jsonb := '{}';
BEGIN
    FOR v_each IN
        SELECT parent_id, array_agg(n ORDER BY n) AS ns FROM jsonb_to_recordset(p_operations) AS o (n integer, parent_id uuid)
         WHERE parent_id IS NOT NULL GROUP BY parent_id ORDER BY min(n)
    LOOP
        -- Each with its own index, so that the error names the first one that is too many.
        v_project := task.project_of_parent(p_user, v_each.parent_id, 1, 1, v_each.ns[1]);
        FOR v_n IN 2 .. cardinality(v_each.ns) LOOP
            EXIT WHEN cardinality(v_each.ns) < 2;
            IF v_n = cardinality(v_each.ns) OR v_n > 500 THEN
                PERFORM task.project_of_parent(p_user, v_each.parent_id, 1, v_n, v_each.ns[v_n]);
            END IF;
        END LOOP;
        IF v_project IS NOT NULL THEN
            PERFORM task.require_open(p_user, v_project, v_each.ns[1]);
        END IF;
        v_projects := v_projects || jsonb_build_object(v_each.parent_id, v_project);
    END LOOP;
    FOR v_each IN
        SELECT project_id, min(n) AS n FROM jsonb_to_recordset(p_operations) AS o (n integer, project_id uuid, parent_id uuid)
         WHERE project_id IS NOT NULL AND parent_id IS NULL GROUP BY project_id ORDER BY 2
    LOOP
        PERFORM task.require_open(p_user, v_each.project_id, v_each.n);
    END LOOP;
    RETURN v_projects;
END $$;

-- See 0010_citus.sql. p_all: all of the new tasks. Otherwise the first of them, or all if one has a parent.
CREATE FUNCTION task.create_tasks(p_user uuid, p_operations jsonb, p_seq bigint, p_actor task.author, p_all boolean)
RETURNS task.tasks[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now         timestamptz := clock_timestamp();
    v_projects    jsonb := '{}';
    v_tasks       task.tasks[];
    v_task        task.tasks;
    v_pending     bigint;
    v_in_progress bigint;
    v_completed   bigint;
    v_reminding   boolean;
BEGIN
    IF jsonb_array_length(p_operations) = 1 THEN
        RETURN ARRAY[task.create_task(p_user, p_operations -> 0, p_seq, p_actor)];
    END IF;
    IF p_operations @? '$[*] ? (exists(@.project_id) || exists(@.parent_id))' THEN
        v_projects := task.projects_of_parents(p_user, p_operations);
    END IF;
    SELECT array_agg(ROW(p_user, id, title, description, status, priority, due_date, labels, v_now, v_now, CASE WHEN status = 3 THEN v_now END, NULL, 1,
                         CASE WHEN parent_id IS NULL THEN project_id ELSE (v_projects ->> parent_id::text)::uuid END, parent_id,
                         task.position_of(p_seq + 1 + n), due_on, time_zone, recurrence, NULL, NULL, reminders, NULL)
                     ::task.tasks ORDER BY n),
           count(*) FILTER (WHERE status = 1), count(*) FILTER (WHERE status = 2), count(*) FILTER (WHERE status = 3), bool_or(reminders IS NOT NULL)
      INTO v_tasks, v_pending, v_in_progress, v_completed, v_reminding
      FROM jsonb_to_recordset(p_operations) AS o (
        n integer, id uuid, title text, description text, status smallint, priority smallint, due_date timestamptz, labels text[],
        project_id uuid, parent_id uuid, due_on date, time_zone text, recurrence jsonb, reminders jsonb);
    INSERT INTO task.tasks (user_id, id, title, description, status, priority, due_date, labels, created_at, updated_at, completed_at, version,
                            project_id, parent_id, position, due_on, time_zone, recurrence, reminders)
    SELECT p_user, id, title, description, status, priority, due_date, labels, created_at, updated_at, completed_at, version,
           project_id, parent_id, position, due_on, time_zone, recurrence, reminders FROM unnest(v_tasks);
    INSERT INTO task.changes (user_id, seq, kind, task_id, version, snapshot, changed_fields, actor_id, session_id, request_id, at, by_api_token)
    SELECT p_user, p_seq + row_number() OVER (), 1, made.id, 1, jsonb_strip_nulls(to_jsonb(made)), '{}',
           p_actor.actor_id, p_actor.session_id, p_actor.request_id, v_now, p_actor.by_api_token
      FROM unnest(v_tasks) AS made;
    INSERT INTO task.task_labels (user_id, label, completed, created_at, task_id)
    SELECT DISTINCT p_user, label, status = 3, v_now, id FROM unnest(v_tasks) CROSS JOIN unnest(labels) AS label;
    IF v_reminding THEN
        FOREACH v_task IN ARRAY v_tasks LOOP
            IF v_task.reminders IS NOT NULL AND v_task.status <> 3 THEN
                PERFORM task.schedule(p_user, v_task.id, task.times_of(v_task.reminders, v_task.due_date));
            END IF;
        END LOOP;
    END IF;
    PERFORM task.count_tasks(p_user, v_pending, v_in_progress, v_completed);
    RETURN CASE WHEN p_all OR v_projects <> '{}' THEN v_tasks ELSE v_tasks[1:1] END;
END $$;

-- The task that follows a completed one: p_next is {id, due_date, due_on, recurrence}.
CREATE FUNCTION task.create_next(p_done task.tasks, p_next jsonb, p_seq bigint, p_actor task.author) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_next task.operation := jsonb_populate_record(NULL::task.operation, p_next);
    v_task task.tasks;
BEGIN
    INSERT INTO task.tasks (user_id, id, title, description, status, priority, due_date, labels, created_at, updated_at, version,
                            project_id, parent_id, position, due_on, time_zone, recurrence, previous_id, reminders)
    VALUES (p_done.user_id, v_next.id, p_done.title, p_done.description, 1, p_done.priority, v_next.due_date, p_done.labels,
            p_done.updated_at, p_done.updated_at, 1, p_done.project_id, p_done.parent_id, task.position_of(p_seq), v_next.due_on, p_done.time_zone,
            v_next.recurrence, p_done.id, p_done.reminders)
    RETURNING * INTO v_task;
    PERFORM task.log_change(v_task, p_seq, 1::smallint, '{}', p_actor);
    IF v_task.labels <> '{}' THEN
        PERFORM task.write_labels(v_task.user_id, v_task.id, v_task.created_at, '{}', false, v_task.labels, false);
    END IF;
    IF v_task.reminders IS NOT NULL THEN
        PERFORM task.schedule(v_task.user_id, v_task.id, task.times_of(v_task.reminders, v_task.due_date));
    END IF;
    PERFORM task.count_tasks(v_task.user_id, 1, 0, 0);
END $$;

-- See 0010_citus.sql. An update that completes a task with a recurrence needs a basis: else it is refused with TM009.
-- o_used: how many numbers it has used, which can be more than there are operations.
CREATE FUNCTION task.update_tasks(
    p_user uuid, p_operations jsonb, p_seq bigint, p_actor task.author, p_max_bytes integer, OUT o_tasks task.tasks[], OUT o_used integer
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_op        task.operation;
    v_old       task.tasks;
    v_new       task.tasks;
    v_fields    text[];
    v_snapshot  jsonb;
    v_completes boolean;
    v_is_plain  boolean;
    v_bytes     bigint := 0;
    -- By status.
    v_counts bigint[] := '{0,0,0}';
BEGIN
    o_used := 0;
    FOR v_n IN 0 .. jsonb_array_length(p_operations) - 1 LOOP
        v_op := jsonb_populate_record(NULL::task.operation, p_operations -> v_n);
        v_old := task.task_to_write(p_user, v_op.id, false, v_op.versions, v_op.n);
        IF v_op.basis <> v_old.version THEN
            PERFORM task.refuse('TM009', v_op.n);
        END IF;
        v_new := v_old;
        v_fields := '{}';
        v_is_plain := true;
        IF 'title' = ANY (v_op.mask) THEN v_new.title := v_op.title; END IF;
        IF 'description' = ANY (v_op.mask) THEN v_new.description := v_op.description; END IF;
        IF 'status' = ANY (v_op.mask) THEN v_new.status := v_op.status; END IF;
        IF 'priority' = ANY (v_op.mask) THEN v_new.priority := v_op.priority; END IF;
        IF 'labels' = ANY (v_op.mask) THEN v_new.labels := v_op.labels; END IF;
        IF v_op.mask && '{due_date,due_on,time_zone,recurrence,reminders}' THEN
            -- To set due_date clears due_on, and to clear due_date leaves due_on.
            IF 'due_date' = ANY (v_op.mask) AND (v_op.due_date IS NOT NULL OR v_old.due_on IS NULL OR 'due_on' = ANY (v_op.mask)) THEN
                v_new.due_date := v_op.due_date;
                v_new.due_on := NULL;
            END IF;
            IF 'due_on' = ANY (v_op.mask) THEN v_new.due_on := v_op.due_on; END IF;
            IF 'time_zone' = ANY (v_op.mask) THEN v_new.time_zone := v_op.time_zone; END IF;
            IF 'recurrence' = ANY (v_op.mask) THEN v_new.recurrence := v_op.recurrence; END IF;
            IF 'reminders' = ANY (v_op.mask) THEN v_new.reminders := v_op.reminders; END IF;
            IF v_new.due_on IS DISTINCT FROM v_old.due_on THEN v_fields := v_fields || 'due_on'::text; END IF;
            -- In the API a task with due_on has no due_date.
            IF (CASE WHEN v_new.due_on IS NULL THEN v_new.due_date END IS DISTINCT FROM CASE WHEN v_old.due_on IS NULL THEN v_old.due_date END) THEN
                v_fields := v_fields || 'due_date'::text;
            END IF;
            IF v_new.time_zone IS DISTINCT FROM v_old.time_zone THEN v_fields := v_fields || 'time_zone'::text; END IF;
            -- The series moves with the due date.
            IF (v_new.recurrence ->> 'rrule', v_new.recurrence ->> 'anchor')
                IS DISTINCT FROM (v_old.recurrence ->> 'rrule', v_old.recurrence ->> 'anchor') THEN v_fields := v_fields || 'recurrence'::text; END IF;
            IF v_new.reminders IS DISTINCT FROM v_old.reminders THEN v_fields := v_fields || 'reminders'::text; END IF;
            v_is_plain := v_fields <@ '{due_date}' AND v_new.recurrence IS NOT DISTINCT FROM v_old.recurrence;
            IF v_new.recurrence IS NOT NULL AND v_new.due_date IS NULL THEN
                PERFORM task.refuse('TM020', v_op.n);
            END IF;
        END IF;
        v_completes := v_new.status = 3 AND v_old.status <> 3 AND v_new.recurrence IS NOT NULL AND v_new.next_id IS NULL;
        IF v_completes AND v_op.basis IS NULL THEN
            PERFORM task.refuse('TM009', v_op.n);
        END IF;
        IF v_completes AND v_op.next IS NOT NULL THEN
            v_new.next_id := v_op.next ->> 'id';
            v_fields := v_fields || 'next_id'::text;
            v_is_plain := false;
        END IF;
        IF v_new.title <> v_old.title THEN v_fields := v_fields || 'title'::text; END IF;
        IF v_new.description <> v_old.description THEN v_fields := v_fields || 'description'::text; END IF;
        IF v_new.status <> v_old.status THEN v_fields := v_fields || 'status'::text; END IF;
        IF v_new.priority <> v_old.priority THEN v_fields := v_fields || 'priority'::text; END IF;
        IF v_new.labels <> v_old.labels THEN v_fields := v_fields || 'labels'::text; END IF;
        IF v_fields <> '{}' THEN
            o_used := o_used + 1;
            v_new.version := v_old.version + 1;
            -- Never backwards, whatever the clock does.
            v_new.updated_at := greatest(clock_timestamp(), v_old.updated_at);
            IF v_new.status <> v_old.status OR v_new.labels <> v_old.labels OR NOT v_is_plain THEN
                v_new.completed_at := CASE WHEN v_new.status <> 3 THEN NULL WHEN v_old.status = 3 THEN v_old.completed_at ELSE v_new.updated_at END;
                IF v_is_plain THEN
                    UPDATE task.tasks
                       SET title = v_new.title, description = v_new.description, status = v_new.status, priority = v_new.priority,
                           due_date = v_new.due_date, labels = v_new.labels, updated_at = v_new.updated_at, completed_at = v_new.completed_at,
                           version = v_new.version
                     WHERE user_id = p_user AND id = v_op.id;
                ELSE
                    UPDATE task.tasks
                       SET title = v_new.title, description = v_new.description, status = v_new.status, priority = v_new.priority,
                           due_date = v_new.due_date, labels = v_new.labels, updated_at = v_new.updated_at, completed_at = v_new.completed_at,
                           version = v_new.version, due_on = v_new.due_on, time_zone = v_new.time_zone, recurrence = v_new.recurrence,
                           reminders = v_new.reminders, next_id = v_new.next_id
                     WHERE user_id = p_user AND id = v_op.id;
                END IF;
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
            v_snapshot := jsonb_strip_nulls(to_jsonb(v_new));
            INSERT INTO task.changes (user_id, seq, kind, task_id, version, snapshot, changed_fields, actor_id, session_id, request_id, at, by_api_token)
            VALUES (p_user, p_seq + o_used, 2, v_op.id, v_new.version, v_snapshot, v_fields,
                    p_actor.actor_id, p_actor.session_id, p_actor.request_id, v_new.updated_at, p_actor.by_api_token);
            IF v_old.reminders IS NOT NULL OR v_new.reminders IS NOT NULL THEN
                PERFORM task.schedule(p_user, v_op.id, CASE WHEN v_new.status = 3 OR v_new.reminders IS NULL THEN '{}'
                                                            ELSE task.times_of(v_new.reminders, v_new.due_date) END);
            END IF;
            IF v_completes AND v_op.next IS NOT NULL THEN
                o_used := o_used + 1;
                PERFORM task.create_next(v_new, v_op.next, p_seq + o_used, p_actor);
            END IF;
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

-- Moves one task to the bin (p_kind 3) or out of it (4), writes its labels and its reminders, and logs it as p_seq. It does not count it.
-- p_with: what takes it along, see deleted_with. p_project: its project when it is out of the bin.
CREATE FUNCTION task.set_deleted(p_user uuid, p_id uuid, p_kind smallint, p_with uuid, p_project uuid, p_seq bigint, p_actor task.author)
RETURNS task.tasks LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_task task.tasks;
    v_now  timestamptz := clock_timestamp();
BEGIN
    UPDATE task.tasks
       SET deleted_at = CASE WHEN p_kind = 3 THEN greatest(v_now, updated_at) END, updated_at = greatest(v_now, updated_at), version = version + 1,
           deleted_with = p_with, project_id = CASE WHEN p_kind = 3 THEN project_id ELSE p_project END
     WHERE user_id = p_user AND id = p_id
    RETURNING * INTO v_task;
    -- The sweeper, which waits for no counter, has removed it meanwhile.
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF v_task.labels <> '{}' THEN
        PERFORM task.write_labels(p_user, v_task.id, v_task.created_at, CASE WHEN p_kind = 3 THEN v_task.labels ELSE '{}' END, v_task.status = 3,
                                  CASE WHEN p_kind = 3 THEN '{}' ELSE v_task.labels END, v_task.status = 3);
    END IF;
    IF v_task.reminders IS NOT NULL THEN
        PERFORM task.schedule(p_user, v_task.id, CASE WHEN p_kind = 3 OR v_task.status = 3 THEN '{}'
                                                      ELSE task.times_of(v_task.reminders, v_task.due_date) END);
    END IF;
    PERFORM task.log_change(v_task, p_seq, p_kind, '{}', p_actor);
    RETURN v_task;
END $$;

-- p_operations: [{n, id, versions}, …]. Moves the tasks to the bin (p_kind 3) or out of it (4), with their subtasks: to the bin the deepest first, out of
-- it the task first. o_tasks: the tasks of the operations, as they are then. o_missing: see task.execute.
CREATE FUNCTION task.move_tasks(
    p_user uuid, p_operations jsonb, p_seq bigint, p_kind smallint, p_actor task.author, p_covered uuid[],
    OUT o_tasks task.tasks[], OUT o_used integer, OUT o_missing uuid[]
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_op      record;
    v_old     task.tasks;
    v_task    task.tasks;
    v_id      uuid;
    v_project uuid;
    v_family  uuid[];
    v_levels  integer;
    -- By status.
    v_counts bigint[] := '{0,0,0}';
    v_one    integer := CASE WHEN p_kind = 3 THEN -1 ELSE 1 END;
BEGIN
    o_used := 0;
    IF p_covered IS NOT NULL THEN
        FOR v_op IN SELECT * FROM jsonb_to_recordset(p_operations) AS o (n integer, id uuid) LOOP
            v_family := (task.descendants(p_user, v_op.id, CASE WHEN p_kind = 4 THEN v_op.id END)).o_ids;
            IF NOT v_family <@ p_covered THEN
                o_missing := coalesce(o_missing, '{}') || v_family;
            END IF;
        END LOOP;
        IF o_missing IS NOT NULL THEN
            RETURN;
        END IF;
    END IF;
    FOR v_op IN SELECT * FROM jsonb_to_recordset(p_operations) AS o (n integer, id uuid, versions bigint[]) ORDER BY n LOOP
        v_old := task.task_to_write(p_user, v_op.id, p_kind = 4, v_op.versions, v_op.n);
        v_project := v_old.project_id;
        SELECT o_ids, o_levels INTO v_family, v_levels FROM task.descendants(p_user, v_op.id, CASE WHEN p_kind = 4 THEN v_op.id END);
        IF cardinality(v_family) > 1000 THEN
            PERFORM task.refuse('TM015', v_op.n);
        END IF;
        IF p_kind = 4 AND v_old.parent_id IS NOT NULL THEN
            IF NOT EXISTS (SELECT FROM task.tasks WHERE user_id = p_user AND id = v_old.parent_id AND deleted_at IS NULL) THEN
                PERFORM task.refuse('TM018', v_op.n);
            END IF;
            v_project := task.project_of_parent(p_user, v_old.parent_id, v_levels + 1, 1, v_op.n);
        ELSIF p_kind = 4 AND v_project IS NOT NULL THEN
            IF NOT EXISTS (SELECT FROM task.projects WHERE user_id = p_user AND id = v_project AND deleted_at IS NULL) THEN
                PERFORM task.refuse('TM019', v_op.n);
            END IF;
        END IF;
        v_family := CASE WHEN p_kind = 3 THEN v_family || v_op.id ELSE v_op.id || array_reverse(v_family) END;
        FOREACH v_id IN ARRAY v_family LOOP
            v_task := task.set_deleted(p_user, v_id, p_kind, CASE WHEN p_kind = 3 AND v_id <> v_op.id THEN v_op.id END, v_project, p_seq + o_used + 1,
                                       p_actor);
            IF v_task.id IS NULL THEN
                CONTINUE WHEN v_id <> v_op.id;
                PERFORM task.refuse('TM002', v_op.n);
            END IF;
            o_used := o_used + 1;
            v_counts[v_task.status] := v_counts[v_task.status] + v_one;
            IF v_id = v_op.id THEN
                o_tasks := o_tasks || v_task;
            END IF;
        END LOOP;
    END LOOP;
    PERFORM task.count_tasks(p_user, v_counts[1], v_counts[2], v_counts[3]);
END $$;

-- Where a task moves to. o_project, o_parent, o_position: what it gets; the position is null if there is no room for it. o_low, o_high: the positions
-- between which it goes. o_at: the position of the sibling in before_id or after_id. o_family: its subtasks at all levels, if they change. Refuses what cannot be.
CREATE FUNCTION task.target_of(
    p_user uuid, p_old task.tasks, p_op task.operation, p_seq bigint,
    OUT o_project uuid, OUT o_parent uuid, OUT o_position text, OUT o_low text, OUT o_high text, OUT o_at text, OUT o_family uuid[]
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_levels  integer;
    v_sibling uuid := coalesce(p_op.before_id, p_op.after_id);
BEGIN
    o_parent := CASE WHEN p_op.moves_parent THEN p_op.parent_id WHEN p_op.moves_project THEN NULL ELSE p_old.parent_id END;
    o_project := CASE WHEN p_op.moves_project THEN p_op.project_id ELSE p_old.project_id END;
    o_family := '{}';
    IF o_parent IS DISTINCT FROM p_old.parent_id OR o_project IS DISTINCT FROM p_old.project_id THEN
        SELECT o_ids, o_levels INTO o_family, v_levels FROM task.descendants(p_user, p_old.id, NULL);
        IF o_parent = p_old.id OR o_parent = ANY (o_family) THEN
            PERFORM task.refuse('TM016', p_op.n);
        END IF;
        IF cardinality(o_family) > 1000 THEN
            PERFORM task.refuse('TM015', p_op.n);
        END IF;
    END IF;
    IF o_parent IS DISTINCT FROM p_old.parent_id AND o_parent IS NOT NULL THEN
        o_project := task.project_of_parent(p_user, o_parent, v_levels + 1, 1, p_op.n);
    ELSIF o_parent IS NOT NULL THEN
        o_project := p_old.project_id;
    END IF;
    IF o_project IS DISTINCT FROM p_old.project_id THEN
        IF o_project IS NOT NULL THEN
            PERFORM task.require_open(p_user, o_project, p_op.n);
        END IF;
    ELSE
        o_family := '{}';
    END IF;
    o_high := task.position_of(p_seq + 1);
    IF v_sibling IS NOT NULL THEN
        SELECT COALESCE(position, '0' || encode(uuid_send(id), 'hex')) INTO o_at FROM task.tasks
         WHERE user_id = p_user AND id = v_sibling AND id <> p_old.id AND deleted_at IS NULL
           AND project_id IS NOT DISTINCT FROM o_project AND parent_id IS NOT DISTINCT FROM o_parent;
        IF NOT FOUND THEN
            PERFORM task.refuse('TM017', p_op.n);
        END IF;
    END IF;
    IF p_op.after_id IS NULL THEN
        o_high := coalesce(o_at, o_high);
        SELECT s.o_position INTO o_low FROM task.siblings(p_user, o_project, o_parent, p_old.id, o_high, v_sibling, false, 1) AS s;
        o_low := coalesce(o_low, '');
    ELSE
        o_low := o_at;
        SELECT coalesce(min(s.o_position), o_high) INTO o_high
          FROM task.siblings(p_user, o_project, o_parent, p_old.id, o_low, v_sibling, true, 1) AS s;
    END IF;
    o_position := CASE WHEN v_sibling IS NULL THEN o_high ELSE task.position_between(o_low, o_high) END;
END $$;

-- The tasks of a list next to a place in it, at most p_limit, without the task p_without: those behind it, or those before it, the nearest first.
CREATE FUNCTION task.siblings(
    p_user uuid, p_project uuid, p_parent uuid, p_without uuid, p_position text, p_id uuid, p_behind boolean, p_limit integer
) RETURNS TABLE (o_id uuid, o_position text) LANGUAGE plpgsql VOLATILE SET plan_cache_mode = force_custom_plan AS $$
BEGIN
    IF p_behind THEN
        RETURN QUERY
        SELECT t.id, COALESCE(t.position, '0' || encode(uuid_send(t.id), 'hex')) FROM task.tasks AS t
         WHERE t.user_id = p_user AND t.project_id IS NOT DISTINCT FROM p_project AND t.parent_id IS NOT DISTINCT FROM p_parent
           AND t.deleted_at IS NULL AND t.id <> p_without
           AND (COALESCE(t.position, '0' || encode(uuid_send(t.id), 'hex')), t.id)
               > (p_position COLLATE "C", coalesce(p_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
         ORDER BY COALESCE(t.position, '0' || encode(uuid_send(t.id), 'hex')), t.id LIMIT p_limit;
    ELSE
        RETURN QUERY
        SELECT t.id, COALESCE(t.position, '0' || encode(uuid_send(t.id), 'hex')) FROM task.tasks AS t
         WHERE t.user_id = p_user AND t.project_id IS NOT DISTINCT FROM p_project AND t.parent_id IS NOT DISTINCT FROM p_parent
           AND t.deleted_at IS NULL AND t.id <> p_without
           AND (COALESCE(t.position, '0' || encode(uuid_send(t.id), 'hex')), t.id)
               < (p_position COLLATE "C", coalesce(p_id, '00000000-0000-0000-0000-000000000000'::uuid))
         ORDER BY COALESCE(t.position, '0' || encode(uuid_send(t.id), 'hex')) DESC, t.id DESC LIMIT p_limit;
    END IF;
END $$;

-- Sets a task's position or project, and logs it as p_seq.
CREATE FUNCTION task.place_task(
    p_user uuid, p_id uuid, p_project uuid, p_parent uuid, p_position text, p_fields text[], p_seq bigint, p_actor task.author
) RETURNS task.tasks LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_task task.tasks;
    v_now  timestamptz := clock_timestamp();
BEGIN
    UPDATE task.tasks
       SET project_id = p_project, parent_id = CASE WHEN 'parent_id' = ANY (p_fields) THEN p_parent ELSE parent_id END,
           position = CASE WHEN 'position' = ANY (p_fields) THEN p_position ELSE position END,
           updated_at = greatest(v_now, updated_at), version = version + 1
     WHERE user_id = p_user AND id = p_id
    RETURNING * INTO v_task;
    PERFORM task.log_change(v_task, p_seq, 2::smallint, p_fields, p_actor);
    RETURN v_task;
END $$;

-- New positions for a task at a place where there is no room, and for its neighbours: at most 250 before the sibling p_at and 250 behind it. p_is_behind:
-- whether the task goes behind the sibling. o_ids: the tasks in their order, and o_positions: their positions.
CREATE FUNCTION task.renewed(
    p_user uuid, p_project uuid, p_parent uuid, p_id uuid, p_sibling uuid, p_at text, p_is_behind boolean, p_end text,
    OUT o_ids uuid[], OUT o_positions text[]
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_before uuid[];
    v_behind uuid[];
    v_low    text;
    v_high   text;
BEGIN
    -- One more than get a new position: that is the last one of 251, if there are so many.
    SELECT coalesce(array_agg(s.o_id ORDER BY s.o_position, s.o_id), '{}'), CASE WHEN count(*) = 251 THEN min(s.o_position) ELSE '' END
      INTO v_before, v_low FROM task.siblings(p_user, p_project, p_parent, p_id, p_at, p_sibling, false, 251) AS s;
    SELECT coalesce(array_agg(s.o_id ORDER BY s.o_position, s.o_id), '{}'), CASE WHEN count(*) = 251 THEN max(s.o_position) ELSE p_end END
      INTO v_behind, v_high FROM task.siblings(p_user, p_project, p_parent, p_id, p_at, p_sibling, true, 251) AS s;
    IF v_low <> '' THEN
        v_before := v_before[2:];
    END IF;
    IF v_high <> p_end THEN
        v_behind := v_behind[:250];
    END IF;
    o_ids := v_before || CASE WHEN p_is_behind THEN ARRAY[p_sibling, p_id] ELSE ARRAY[p_id, p_sibling] END || v_behind;
    o_positions := task.positions_between(v_low, v_high, cardinality(o_ids));
    IF o_positions IS NULL THEN
        RAISE EXCEPTION 'there is no room between % and %', v_low, v_high;
    END IF;
END $$;

-- Moves one task to another place, parent or project, with its subtasks. Where there is no room, because the position would be longer than 100
-- characters or two neighbours have the same one, its neighbours get new positions too. o_missing: tasks that it would change and p_covered lacks;
-- then it has changed nothing. p_covered null: it may change any.
CREATE FUNCTION task.place_tasks(
    p_user uuid, p_operation jsonb, p_seq bigint, p_actor task.author, p_covered uuid[],
    OUT o_tasks task.tasks[], OUT o_used integer, OUT o_missing uuid[]
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_op     task.operation := jsonb_populate_record(NULL::task.operation, p_operation);
    v_old    task.tasks := task.task_to_write(p_user, v_op.id, false, v_op.versions, v_op.n);
    v_at     text := COALESCE(v_old.position, '0' || encode(uuid_send(v_old.id), 'hex'));
    v_target record;
    v_new    record;
    v_task   task.tasks;
    v_fields text[] := '{}';
    v_id     uuid;
BEGIN
    o_used := 0;
    SELECT * INTO v_target FROM task.target_of(p_user, v_old, v_op, p_seq);
    IF v_target.o_project IS DISTINCT FROM v_old.project_id THEN v_fields := v_fields || 'project_id'::text; END IF;
    IF v_target.o_parent IS DISTINCT FROM v_old.parent_id THEN v_fields := v_fields || 'parent_id'::text; END IF;
    IF v_fields = '{}' AND v_at COLLATE "C" > v_target.o_low AND v_at COLLATE "C" < v_target.o_high THEN
        -- It is there already.
        o_tasks := ARRAY[v_old];
        RETURN;
    END IF;
    v_fields := v_fields || 'position'::text;
    SELECT ARRAY[v_op.id] AS ids, ARRAY[v_target.o_position] AS positions INTO v_new;
    IF v_target.o_position IS NULL OR length(v_target.o_position) > 100 THEN
        SELECT o_ids AS ids, o_positions AS positions INTO v_new
          FROM task.renewed(p_user, v_target.o_project, v_target.o_parent, v_op.id, coalesce(v_op.before_id, v_op.after_id), v_target.o_at,
                            v_op.after_id IS NOT NULL, task.position_of(p_seq + 1));
    END IF;
    IF NOT v_new.ids || v_target.o_family <@ p_covered THEN
        o_missing := v_new.ids || v_target.o_family;
        RETURN;
    END IF;
    FOR v_n IN 1 .. cardinality(v_new.ids) LOOP
        o_used := o_used + 1;
        v_task := task.place_task(p_user, v_new.ids[v_n], v_target.o_project, v_target.o_parent, v_new.positions[v_n],
                                  CASE WHEN v_new.ids[v_n] = v_op.id THEN v_fields ELSE '{position}' END, p_seq + o_used, p_actor);
        IF v_task.id = v_op.id THEN
            o_tasks := ARRAY[v_task];
        END IF;
    END LOOP;
    FOREACH v_id IN ARRAY array_reverse(v_target.o_family) LOOP
        o_used := o_used + 1;
        PERFORM task.place_task(p_user, v_id, v_target.o_project, NULL, NULL, '{project_id}', p_seq + o_used, p_actor);
    END LOOP;
END $$;

-- The answer of the request that had this key in the last 24 hours; null if there was none. Refuses another request than that one.
CREATE FUNCTION task.kept_answer(p_user uuid, p_key text, p_hash bytea) RETURNS jsonb LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_kept task.idempotency_keys;
BEGIN
    SELECT * INTO v_kept FROM task.idempotency_keys
     WHERE user_id = p_user AND key = p_key AND created_at > clock_timestamp() - interval '24 hours';
    IF v_kept.request_hash <> p_hash THEN
        PERFORM task.refuse('TM005', 0);
    END IF;
    RETURN v_kept.answer;
END $$;

-- Keeps the answer of a request under its key.
CREATE FUNCTION task.keep_answer(p_user uuid, p_key text, p_hash bytea, p_answer jsonb) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO task.idempotency_keys (user_id, key, request_hash, answer, created_at)
    VALUES (p_user, p_key, p_hash, p_answer, clock_timestamp())
    ON CONFLICT (user_id, key) DO UPDATE SET request_hash = excluded.request_hash, answer = excluded.answer, created_at = excluded.created_at;
END $$;

-- One write, after task.take_seqs has locked the counter: p_kind as in task.changes, or 10 for a move; all of p_operations or none. o_tasks: the tasks as
-- they are then, in the order of the operations; of a deletion none, and of a creation without a key the first alone: the others are what was asked
-- for, of the same moment.
-- p_seq: the last number that was used before. o_used: how many of the next ones this write has used.
-- p_generation, p_fenced: see 0010_citus.sql. p_covered: the tasks that the caller has fenced. o_missing: the other tasks that it would change, if there
-- are such; then it has changed nothing, and the caller can fence them and try again.
CREATE FUNCTION task.execute(
    p_user uuid, p_kind smallint, p_operations jsonb, p_seq bigint, p_actor task.author, p_key text, p_hash bytea, p_max_bytes integer,
    p_generation uuid, p_fenced boolean, p_covered uuid[],
    OUT o_replayed boolean, OUT o_tasks task.tasks[], OUT o_used integer, OUT o_missing uuid[]
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_id     xid8 := pg_current_xact_id();
    v_answer jsonb;
BEGIN
    IF p_generation IS NOT NULL THEN
        PERFORM FROM task.cache_state WHERE generation = p_generation AND (mode > 1) = p_fenced;
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'TM007', MESSAGE = '0';
        END IF;
    END IF;
    IF p_key IS NOT NULL THEN
        v_answer := task.kept_answer(p_user, p_key, p_hash);
        IF v_answer IS NOT NULL THEN
            o_replayed := true;
            o_tasks := ARRAY(SELECT kept FROM jsonb_populate_recordset(NULL::task.tasks, v_answer) AS kept);
            o_used := 0;
            RETURN;
        END IF;
    END IF;
    o_replayed := false;
    o_used := jsonb_array_length(p_operations);
    -- Without a fence, the cache is off, or nobody can have read the tasks before.
    IF p_fenced IS NOT TRUE THEN
        p_covered := NULL;
    END IF;
    CASE p_kind
        WHEN 1 THEN o_tasks := task.create_tasks(p_user, p_operations, p_seq, p_actor, p_key IS NOT NULL);
        WHEN 2 THEN SELECT * INTO o_tasks, o_used FROM task.update_tasks(p_user, p_operations, p_seq, p_actor, p_max_bytes);
        WHEN 10 THEN SELECT * INTO o_tasks, o_used, o_missing FROM task.place_tasks(p_user, p_operations -> 0, p_seq, p_actor, p_covered);
        ELSE SELECT * INTO o_tasks, o_used, o_missing FROM task.move_tasks(p_user, p_operations, p_seq, p_kind, p_actor, p_covered);
    END CASE;
    IF p_kind = 3 THEN
        o_tasks := '{}';
    END IF;
    IF p_key IS NOT NULL AND o_missing IS NULL THEN
        v_answer := to_jsonb(o_tasks);
        PERFORM task.keep_answer(p_user, p_key, p_hash, v_answer);
    END IF;
END $$;

-- For code from before, which knows no family: p_covered are the tasks of the operations, and a write that would change others is refused.
CREATE OR REPLACE FUNCTION task.execute(
    p_user uuid, p_kind smallint, p_operations jsonb, p_seq bigint, p_actor task.actor, p_key text, p_hash bytea, p_max_bytes integer,
    p_generation uuid, p_fenced boolean, OUT o_replayed boolean, OUT o_tasks task.tasks[], OUT o_used integer
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_covered uuid[] := ARRAY(SELECT id FROM jsonb_to_recordset(p_operations) AS o (id uuid));
    v_missing uuid[];
BEGIN
    SELECT e.o_replayed, e.o_tasks, e.o_used, e.o_missing INTO o_replayed, o_tasks, o_used, v_missing
      FROM task.execute(p_user, p_kind, p_operations, p_seq,
                        ROW(p_actor.actor_id, p_actor.session_id, p_actor.request_id, false)::task.author,
                        p_key, p_hash, p_max_bytes, p_generation, p_fenced, v_covered) AS e;
    IF v_missing IS NOT NULL THEN
        PERFORM task.refuse('TM008', 0);
    END IF;
END $$;

-- One write in a transaction of its own: see task.execute. A replayed answer that has no task is one row without a task, and so is an answer with
-- o_missing.
CREATE FUNCTION task.write(
    p_user uuid, p_kind smallint, p_operations jsonb, p_actor task.author, p_key text, p_hash bytea, p_max_bytes integer, p_generation uuid,
    p_fenced boolean, p_covered uuid[]
) RETURNS TABLE (o_replayed boolean, o_missing uuid[], o_task task.tasks) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_count integer := jsonb_array_length(p_operations);
    v_seq   bigint := task.take_seqs(p_user, v_count);
    v_used  integer;
    v_tasks task.tasks[];
BEGIN
    SELECT e.o_replayed, e.o_tasks, e.o_used, e.o_missing INTO o_replayed, v_tasks, v_used, o_missing
      FROM task.execute(p_user, p_kind, p_operations, v_seq, p_actor, p_key, p_hash, p_max_bytes, p_generation, p_fenced, p_covered) AS e;
    -- A write that takes subtasks along uses more numbers than it has operations.
    IF v_used <> v_count THEN
        PERFORM task.return_seqs(p_user, v_count - v_used);
    END IF;
    FOREACH o_task IN ARRAY coalesce(v_tasks, '{}') LOOP
        RETURN NEXT;
    END LOOP;
    IF (o_replayed AND v_tasks = '{}') OR o_missing IS NOT NULL THEN
        o_task := NULL;
        RETURN NEXT;
    END IF;
END $$;

-- For code from before. Its body, which may be waiting for the counter, calls the task.execute from before.
CREATE OR REPLACE FUNCTION task.write(
    p_user uuid, p_kind smallint, p_operations jsonb, p_actor task.actor, p_key text, p_hash bytea, p_max_bytes integer, p_generation uuid, p_fenced boolean
) RETURNS TABLE (o_replayed boolean, o_task task.tasks) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_count integer := jsonb_array_length(p_operations);
    v_seq   bigint := task.take_seqs(p_user, v_count);
    v_used  integer;
    v_tasks task.tasks[];
BEGIN
    SELECT e.o_replayed, e.o_tasks, e.o_used INTO o_replayed, v_tasks, v_used
      FROM task.execute(p_user, p_kind, p_operations, v_seq, p_actor, p_key, p_hash, p_max_bytes, p_generation, p_fenced) AS e;
    IF v_used <> v_count THEN
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

-- See 0006_write_cost.sql. p_writes also has by_api_token and covered. A write of code from before has no covered: then it is the tasks of its
-- operations. A write with o_missing is refused with TM008, and the message has the ids, separated by commas.
CREATE OR REPLACE FUNCTION task.write_all(p_user uuid, p_writes jsonb, p_max_bytes integer)
RETURNS TABLE (o_write integer, o_error text, o_message text, o_replayed boolean, o_task task.tasks) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_last    bigint;
    v_seq     bigint;
    v_used    integer;
    v_write   record;
    v_tasks   task.tasks[];
    v_missing uuid[];
BEGIN
    SELECT sum(jsonb_array_length(each -> 'operations')) INTO v_last FROM jsonb_array_elements(p_writes) AS each;
    v_seq := task.take_seqs(p_user, v_last::integer);
    v_last := v_seq + v_last;
    FOR v_write IN
        SELECT * FROM jsonb_to_recordset(p_writes) AS w (
            n integer, kind smallint, operations jsonb, session_id uuid, request_id text, by_api_token boolean, key text, hash text, generation uuid,
            fenced boolean, covered uuid[])
         ORDER BY n
    LOOP
        o_write := v_write.n;
        o_error := NULL;
        o_message := NULL;
        BEGIN
            SELECT e.o_replayed, e.o_tasks, e.o_used, e.o_missing INTO o_replayed, v_tasks, v_used, v_missing
              FROM task.execute(p_user, v_write.kind, v_write.operations, v_seq,
                                ROW(p_user, v_write.session_id, v_write.request_id, coalesce(v_write.by_api_token, false))::task.author,
                                v_write.key, decode(v_write.hash, 'hex'), p_max_bytes, v_write.generation, v_write.fenced,
                                coalesce(v_write.covered, ARRAY(SELECT id FROM jsonb_to_recordset(v_write.operations) AS o (id uuid)))) AS e;
            v_seq := v_seq + v_used;
            IF v_missing IS NOT NULL THEN
                o_error := 'TM008';
                o_message := array_to_string(v_missing, ',');
                v_tasks := '{}';
            END IF;
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
    IF v_seq <> v_last THEN
        PERFORM task.return_seqs(p_user, (v_last - v_seq)::integer);
    END IF;
END $$;

DROP FUNCTION task.log_change(task.tasks, bigint, smallint, text[], task.actor);
DROP FUNCTION task.create_task(uuid, jsonb, bigint, task.actor);
DROP FUNCTION task.create_tasks(uuid, jsonb, bigint, task.actor, boolean);
DROP FUNCTION task.update_tasks(uuid, jsonb, bigint, task.actor, integer);
DROP FUNCTION task.move_tasks(uuid, jsonb, bigint, smallint, task.actor);

-- Fires at most p_limit reminders of a user that are due: logs each as a change of its task, and removes it, in one transaction. o_fired: how many;
-- null if somebody writes for the user just now, and p_waits is false. o_due: the time of the oldest one. A task that is completed or in the bin has no
-- reminders. It executes with the rights of its owner: the role of the worker may call it and read task.reminders, and nothing else.
CREATE FUNCTION task.fire_reminders(p_user uuid, p_limit integer, p_waits boolean, OUT o_fired integer, OUT o_due timestamptz)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    v_seq      bigint;
    v_due      record;
    v_task     task.tasks;
    v_snapshot jsonb;
    v_now      timestamptz := clock_timestamp();
BEGIN
    IF NOT p_waits AND NOT pg_try_advisory_xact_lock(uuid_hash_extended(p_user, 0)) THEN
        RETURN;
    END IF;
    o_fired := 0;
    v_seq := task.take_seqs(p_user, 0);
    FOR v_due IN
        SELECT task_id, fire_at FROM task.reminders WHERE user_id = p_user AND fire_at <= v_now ORDER BY fire_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    LOOP
        DELETE FROM task.reminders WHERE user_id = p_user AND task_id = v_due.task_id AND fire_at = v_due.fire_at;
        SELECT * INTO v_task FROM task.tasks WHERE user_id = p_user AND id = v_due.task_id AND deleted_at IS NULL AND status <> 3;
        IF FOUND THEN
            o_fired := o_fired + 1;
            o_due := coalesce(o_due, v_due.fire_at);
            v_snapshot := jsonb_strip_nulls(to_jsonb(v_task));
            -- It is nobody's change: no session has the id of zeros.
            INSERT INTO task.changes (user_id, seq, kind, task_id, version, snapshot, changed_fields, actor_id, session_id, request_id, at)
            VALUES (p_user, v_seq + o_fired, 6, v_task.id, v_task.version, v_snapshot, '{}', p_user, '00000000-0000-0000-0000-000000000000', '',
                    clock_timestamp());
        END IF;
    END LOOP;
    PERFORM task.return_seqs(p_user, -o_fired);
END $$;
REVOKE ALL ON FUNCTION task.fire_reminders(uuid, integer, boolean) FROM PUBLIC;

-- Removes at most p_limit rows of a closed account from each table: see 0010_citus.sql.
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
    v_removed := v_removed + v_rows;
    DELETE FROM task.reminders WHERE user_id = p_user AND (task_id, fire_at) IN (
        SELECT task_id, fire_at FROM task.reminders WHERE user_id = p_user LIMIT p_limit);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_removed := v_removed + v_rows;
    DELETE FROM task.projects WHERE user_id = p_user AND id IN (SELECT id FROM task.projects WHERE user_id = p_user LIMIT p_limit);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    RETURN v_removed + v_rows;
END $$;

-- See 0009_account_removals.sql.
CREATE OR REPLACE FUNCTION task.remove_account(p_user uuid, p_limit integer, OUT o_removed integer, OUT o_left text) LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_custom_plan AS $$
BEGIN
    o_removed := 0;
    o_left := 'elsewhere';
    PERFORM FROM task.account_removals WHERE user_id = p_user FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM FROM task.counters WHERE user_id = p_user AND closed_at IS NOT NULL;
    IF NOT FOUND THEN
        PERFORM task.close_account(p_user);
    END IF;
    o_removed := task.remove_rows(p_user, p_limit);
    o_left := 'some';
    -- Labels without a task.
    IF o_removed = 0 THEN
        DELETE FROM task.task_labels WHERE user_id = p_user AND NOT EXISTS (SELECT FROM task.tasks WHERE user_id = p_user);
        GET DIAGNOSTICS o_removed = ROW_COUNT;
    END IF;
    IF o_removed = 0
        AND NOT EXISTS (SELECT FROM task.tasks WHERE user_id = p_user)
        AND NOT EXISTS (SELECT FROM task.changes WHERE user_id = p_user)
        AND NOT EXISTS (SELECT FROM task.task_labels WHERE user_id = p_user)
        AND NOT EXISTS (SELECT FROM task.idempotency_keys WHERE user_id = p_user)
        AND NOT EXISTS (SELECT FROM task.reminders WHERE user_id = p_user)
        AND NOT EXISTS (SELECT FROM task.projects WHERE user_id = p_user)
    THEN
        DELETE FROM task.account_removals WHERE user_id = p_user;
        o_left := 'none';
    END IF;
END $$;

-- Removes what is kept no longer, at most p_limit rows from each table: tasks and projects from the bin, answers under idempotency keys, the change log's beginning.
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
    SELECT array_agg(user_id), array_agg(id) INTO v_users, v_ids
      FROM (SELECT user_id, id FROM task.projects WHERE deleted_at < now() - p_bin LIMIT p_limit) AS found;
    IF v_users IS NOT NULL THEN
        BEGIN
            DELETE FROM task.projects AS p USING unnest(v_users, v_ids) AS found (user_id, id)
             WHERE p.user_id = found.user_id AND p.id = found.id AND p.deleted_at < now() - p_bin;
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
