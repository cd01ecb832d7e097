-- The writes of projects (docs/data-model.md).

-- The projects of a user, in their order.
CREATE INDEX projects_by_position ON task.projects (user_id, position, id) WHERE deleted_at IS NULL;

-- force: of a deletion. continues: a deletion or an undeletion that an earlier transaction of the same call has begun.
CREATE TYPE task.project_operation AS (
    id uuid, versions bigint[], mask text[], name text, description text, color text, archived boolean, before_id uuid, after_id uuid,
    force boolean, continues boolean
);

-- What a write is refused with, in addition to 0013_projects.sql: TM021 there are as many projects as a user may have, TM022 the project has tasks,
-- TM023 the project is not in the bin.
CREATE FUNCTION task.log_project(p_project task.projects, p_seq bigint, p_kind smallint, p_fields text[], p_actor task.author)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_snapshot jsonb := jsonb_strip_nulls(to_jsonb(p_project));
BEGIN
    INSERT INTO task.changes (user_id, seq, kind, task_id, version, snapshot, changed_fields, actor_id, session_id, request_id, at, by_api_token,
                              is_project)
    VALUES (p_project.user_id, p_seq, p_kind, p_project.id, p_project.version, v_snapshot, p_fields,
            p_actor.actor_id, p_actor.session_id, p_actor.request_id, p_project.updated_at, p_actor.by_api_token, true);
END $$;

CREATE FUNCTION task.refuse_version(p_version bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'TM003', MESSAGE = '0 ' || p_version;
END $$;

-- The project outside the bin, in one of the versions. p_versions null: in any version.
CREATE FUNCTION task.project_to_write(p_user uuid, p_id uuid, p_versions bigint[]) RETURNS task.projects LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_project task.projects;
BEGIN
    SELECT * INTO v_project FROM task.projects WHERE user_id = p_user AND id = p_id AND deleted_at IS NULL;
    IF NOT FOUND THEN
        PERFORM task.refuse('TM011', 0);
    END IF;
    IF v_project.version <> ALL (p_versions) THEN
        PERFORM task.refuse_version(v_project.version);
    END IF;
    RETURN v_project;
END $$;

-- Refuses another project outside the bin if there are 1000.
CREATE FUNCTION task.require_room(p_user uuid) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_count bigint;
BEGIN
    SELECT count(*) INTO v_count FROM task.projects WHERE user_id = p_user AND deleted_at IS NULL;
    IF v_count >= 1000 THEN
        PERFORM task.refuse('TM021', 0);
    END IF;
END $$;

CREATE FUNCTION task.create_project(p_user uuid, p_op task.project_operation, p_seq bigint, p_actor task.author)
RETURNS task.projects LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now     timestamptz := clock_timestamp();
    v_project task.projects;
BEGIN
    PERFORM task.require_room(p_user);
    INSERT INTO task.projects (user_id, id, name, description, color, position, created_at, updated_at, version)
    VALUES (p_user, p_op.id, p_op.name, p_op.description, p_op.color, task.position_of(p_seq + 1), v_now, v_now, 1)
    RETURNING * INTO v_project;
    PERFORM task.log_project(v_project, p_seq + 1, 1::smallint, '{}', p_actor);
    RETURN v_project;
END $$;

-- Sets what the mask names: name, description, color, archived. Setting what is already so changes nothing and takes no number.
CREATE FUNCTION task.update_project(
    p_user uuid, p_op task.project_operation, p_seq bigint, p_actor task.author, OUT o_project task.projects, OUT o_used integer
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_old    task.projects := task.project_to_write(p_user, p_op.id, p_op.versions);
    v_now    timestamptz := greatest(clock_timestamp(), v_old.updated_at);
    v_fields text[] := '{}';
BEGIN
    o_project := v_old;
    o_used := 0;
    IF 'name' = ANY (p_op.mask) THEN o_project.name := p_op.name; END IF;
    IF 'description' = ANY (p_op.mask) THEN o_project.description := p_op.description; END IF;
    IF 'color' = ANY (p_op.mask) THEN o_project.color := p_op.color; END IF;
    IF 'archived' = ANY (p_op.mask) THEN
        o_project.archived_at := CASE WHEN p_op.archived THEN coalesce(v_old.archived_at, v_now) END;
    END IF;
    IF o_project.name <> v_old.name THEN v_fields := v_fields || 'name'::text; END IF;
    IF o_project.description <> v_old.description THEN v_fields := v_fields || 'description'::text; END IF;
    IF o_project.color <> v_old.color THEN v_fields := v_fields || 'color'::text; END IF;
    IF o_project.archived_at IS DISTINCT FROM v_old.archived_at THEN v_fields := v_fields || 'archived_at'::text; END IF;
    IF v_fields <> '{}' THEN
        o_used := 1;
        o_project.updated_at := v_now;
        o_project.version := v_old.version + 1;
        UPDATE task.projects
           SET name = o_project.name, description = o_project.description, color = o_project.color, archived_at = o_project.archived_at,
               updated_at = o_project.updated_at, version = o_project.version
         WHERE user_id = p_user AND id = p_op.id;
        PERFORM task.log_project(o_project, p_seq + 1, 2::smallint, v_fields, p_actor);
    END IF;
END $$;

-- See task.renewed: the same for projects.
CREATE FUNCTION task.renewed_projects(
    p_user uuid, p_id uuid, p_sibling uuid, p_at text, p_is_behind boolean, p_end text, OUT o_ids uuid[], OUT o_positions text[]
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_before uuid[];
    v_behind uuid[];
    v_low    text;
    v_high   text;
BEGIN
    SELECT coalesce(array_agg(id ORDER BY position, id), '{}'), CASE WHEN count(*) = 251 THEN min(position) ELSE '' END INTO v_before, v_low
      FROM (SELECT id, position FROM task.projects
             WHERE user_id = p_user AND deleted_at IS NULL AND id <> p_id AND (position, id) < (p_at COLLATE "C", p_sibling)
             ORDER BY position DESC, id DESC LIMIT 251) AS found;
    SELECT coalesce(array_agg(id ORDER BY position, id), '{}'), CASE WHEN count(*) = 251 THEN max(position) ELSE p_end END INTO v_behind, v_high
      FROM (SELECT id, position FROM task.projects
             WHERE user_id = p_user AND deleted_at IS NULL AND id <> p_id AND (position, id) > (p_at COLLATE "C", p_sibling)
             ORDER BY position, id LIMIT 251) AS found;
    -- The farthest of 251 only limits the positions of the others.
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

-- Moves a project to another place. Where there is no room, its neighbours get new positions too, as in task.place_tasks.
CREATE FUNCTION task.place_project(
    p_user uuid, p_op task.project_operation, p_seq bigint, p_actor task.author, OUT o_project task.projects, OUT o_used integer
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_sibling   uuid := coalesce(p_op.before_id, p_op.after_id);
    v_at        text;
    v_low       text;
    v_end       text := task.position_of(p_seq + 1);
    v_high      text := v_end;
    v_ids       uuid[] := ARRAY[p_op.id];
    v_positions text[];
    v_project   task.projects;
    v_now       timestamptz := clock_timestamp();
BEGIN
    o_used := 0;
    o_project := task.project_to_write(p_user, p_op.id, p_op.versions);
    IF v_sibling IS NOT NULL THEN
        SELECT position INTO v_at FROM task.projects WHERE user_id = p_user AND id = v_sibling AND id <> p_op.id AND deleted_at IS NULL;
        IF NOT FOUND THEN
            PERFORM task.refuse('TM017', 0);
        END IF;
    END IF;
    IF p_op.after_id IS NULL THEN
        v_high := coalesce(v_at, v_end);
        SELECT max(position) INTO v_low FROM task.projects
         WHERE user_id = p_user AND deleted_at IS NULL AND id <> p_op.id AND (position, id) < (v_high COLLATE "C", coalesce(v_sibling, p_op.id));
        v_low := coalesce(v_low, '');
    ELSE
        v_low := v_at;
        SELECT coalesce(min(position), v_end) INTO v_high FROM task.projects
         WHERE user_id = p_user AND deleted_at IS NULL AND id <> p_op.id AND (position, id) > (v_low COLLATE "C", v_sibling);
    END IF;
    IF o_project.position COLLATE "C" > v_low AND o_project.position COLLATE "C" < v_high THEN
        -- It is there already.
        RETURN;
    END IF;
    v_positions := ARRAY[CASE WHEN v_sibling IS NULL THEN v_end ELSE task.position_between(v_low, v_high) END];
    IF v_positions[1] IS NULL OR length(v_positions[1]) > 100 THEN
        SELECT r.o_ids, r.o_positions INTO v_ids, v_positions
          FROM task.renewed_projects(p_user, p_op.id, v_sibling, v_at, p_op.after_id IS NOT NULL, v_end) AS r;
    END IF;
    FOR v_n IN 1 .. cardinality(v_ids) LOOP
        UPDATE task.projects SET position = v_positions[v_n], updated_at = greatest(v_now, updated_at), version = version + 1
         WHERE user_id = p_user AND id = v_ids[v_n]
        RETURNING * INTO v_project;
        o_used := o_used + 1;
        PERFORM task.log_project(v_project, p_seq + o_used, 2::smallint, '{position}', p_actor);
        IF v_project.id = p_op.id THEN
            o_project := v_project;
        END IF;
    END LOOP;
END $$;

-- The next tasks that go to the bin with a project, at most p_limit. Each comes behind its subtasks, so no task is outside the bin while its parent is
-- in it.
CREATE FUNCTION task.next_to_bin(p_user uuid, p_project uuid, p_limit integer) RETURNS uuid[] LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    v_ids  uuid[] := '{}';
    v_more uuid[];
BEGIN
    LOOP
        -- Those without subtasks, but for the ones that are chosen already.
        v_more := ARRAY(
            SELECT t.id FROM task.tasks AS t
             WHERE t.user_id = p_user AND t.project_id = p_project AND t.deleted_at IS NULL AND t.id <> ALL (v_ids)
               AND NOT EXISTS (SELECT FROM task.tasks AS sub
                                WHERE sub.user_id = p_user AND sub.parent_id = t.id AND sub.deleted_at IS NULL AND sub.id <> ALL (v_ids))
             ORDER BY COALESCE(t.position, '0' || encode(uuid_send(t.id), 'hex')), t.id LIMIT p_limit - cardinality(v_ids));
        v_ids := v_ids || v_more;
        EXIT WHEN v_more = '{}' OR cardinality(v_ids) >= p_limit;
    END LOOP;
    RETURN v_ids;
END $$;

-- The next tasks that come out of the bin with a project, at most p_limit. Each comes behind its parent. A task whose parent stays in the bin stays too.
CREATE FUNCTION task.next_to_restore(p_user uuid, p_project uuid, p_limit integer) RETURNS uuid[] LANGUAGE plpgsql VOLATILE
SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    v_ids  uuid[] := '{}';
    v_more uuid[];
BEGIN
    LOOP
        v_more := ARRAY(
            SELECT t.id FROM task.tasks AS t
             WHERE t.user_id = p_user AND t.deleted_with = p_project AND t.id <> ALL (v_ids)
               AND (t.parent_id IS NULL OR t.parent_id = ANY (v_ids)
                    OR EXISTS (SELECT FROM task.tasks AS up WHERE up.user_id = p_user AND up.id = t.parent_id AND up.deleted_at IS NULL))
             LIMIT p_limit - cardinality(v_ids));
        v_ids := v_ids || v_more;
        EXIT WHEN v_more = '{}' OR cardinality(v_ids) >= p_limit;
    END LOOP;
    RETURN v_ids;
END $$;

-- Moves a project to the bin. With force, its next tasks go first, at most p_limit, and the project only with the last of them. o_more: others are left,
-- so the caller must call again. o_missing, p_covered: see task.execute.
CREATE FUNCTION task.delete_project(
    p_user uuid, p_op task.project_operation, p_seq bigint, p_actor task.author, p_covered uuid[], p_limit integer,
    OUT o_project task.projects, OUT o_used integer, OUT o_missing uuid[], OUT o_more boolean
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now  timestamptz;
    v_id   uuid;
    v_ids  uuid[];
    v_task task.tasks;
    -- By status.
    v_counts bigint[] := '{0,0,0}';
BEGIN
    o_used := 0;
    o_more := false;
    IF p_op.continues THEN
        SELECT * INTO o_project FROM task.projects WHERE user_id = p_user AND id = p_op.id AND deleted_at IS NOT NULL;
        IF FOUND THEN
            -- Another call has completed it.
            RETURN;
        END IF;
    END IF;
    o_project := task.project_to_write(p_user, p_op.id, p_op.versions);
    v_ids := task.next_to_bin(p_user, p_op.id, CASE WHEN p_op.force THEN p_limit ELSE 1 END);
    IF v_ids <> '{}' AND p_op.force IS NOT TRUE THEN
        PERFORM task.refuse('TM022', 0);
    END IF;
    IF NOT v_ids <@ p_covered THEN
        o_missing := v_ids;
        RETURN;
    END IF;
    FOREACH v_id IN ARRAY v_ids LOOP
        v_task := task.set_deleted(p_user, v_id, 3::smallint, p_op.id, NULL, p_seq + o_used + 1, p_actor);
        o_used := o_used + 1;
        v_counts[v_task.status] := v_counts[v_task.status] - 1;
    END LOOP;
    IF v_ids <> '{}' THEN
        PERFORM task.count_tasks(p_user, v_counts[1], v_counts[2], v_counts[3]);
        o_more := EXISTS (SELECT FROM task.tasks WHERE user_id = p_user AND project_id = p_op.id AND deleted_at IS NULL);
    END IF;
    IF NOT o_more THEN
        o_used := o_used + 1;
        v_now := clock_timestamp();
        UPDATE task.projects SET deleted_at = greatest(v_now, updated_at), updated_at = greatest(v_now, updated_at), version = version + 1
         WHERE user_id = p_user AND id = p_op.id
        RETURNING * INTO o_project;
        PERFORM task.log_project(o_project, p_seq + o_used, 3::smallint, '{}', p_actor);
    END IF;
END $$;

-- The project of a task that comes out of the bin with a project; null if the task must stay there, because its parent has no room for it.
CREATE FUNCTION task.project_to_return_to(p_user uuid, p_project uuid, p_id uuid) RETURNS uuid LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_parent uuid;
BEGIN
    SELECT parent_id INTO v_parent FROM task.tasks WHERE user_id = p_user AND id = p_id;
    IF v_parent IS NULL THEN
        RETURN p_project;
    END IF;
    RETURN task.project_of_parent(p_user, v_parent, 1, 1, 0);
EXCEPTION WHEN SQLSTATE 'TM010' OR SQLSTATE 'TM013' OR SQLSTATE 'TM014' THEN
    RETURN NULL;
END $$;

-- Moves a project out of the bin, and then the next tasks that went there with it, at most p_limit. o_more, o_missing, p_covered: see
-- task.delete_project. If the project is out of the bin already, and some of these tasks are not, it goes on.
CREATE FUNCTION task.undelete_project(
    p_user uuid, p_op task.project_operation, p_seq bigint, p_actor task.author, p_covered uuid[], p_limit integer,
    OUT o_project task.projects, OUT o_used integer, OUT o_missing uuid[], OUT o_more boolean
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
    v_id     uuid;
    v_ids    uuid[];
    v_target uuid;
    v_task   task.tasks;
    -- By status.
    v_counts bigint[] := '{0,0,0}';
BEGIN
    o_used := 0;
    o_more := false;
    SELECT * INTO o_project FROM task.projects WHERE user_id = p_user AND id = p_op.id;
    -- Another call has deleted it again.
    IF NOT FOUND OR (o_project.deleted_at IS NOT NULL AND p_op.continues) THEN
        PERFORM task.refuse('TM011', 0);
    END IF;
    v_ids := task.next_to_restore(p_user, p_op.id, p_limit);
    IF o_project.deleted_at IS NULL AND v_ids = '{}' THEN
        IF p_op.continues IS NOT TRUE THEN
            PERFORM task.refuse('TM023', 0);
        END IF;
        RETURN;
    END IF;
    -- A repetition has the etag from before the project came out of the bin.
    IF o_project.version <> ALL (p_op.versions) AND (o_project.deleted_at IS NOT NULL OR o_project.version - 1 <> ALL (p_op.versions)) THEN
        PERFORM task.refuse_version(o_project.version);
    END IF;
    IF o_project.deleted_at IS NOT NULL THEN
        PERFORM task.require_room(p_user);
    END IF;
    IF NOT v_ids <@ p_covered THEN
        o_missing := v_ids;
        RETURN;
    END IF;
    IF o_project.deleted_at IS NOT NULL THEN
        o_used := 1;
        UPDATE task.projects SET deleted_at = NULL, updated_at = greatest(v_now, updated_at), version = version + 1
         WHERE user_id = p_user AND id = p_op.id
        RETURNING * INTO o_project;
        PERFORM task.log_project(o_project, p_seq + 1, 4::smallint, '{}', p_actor);
    END IF;
    FOREACH v_id IN ARRAY v_ids LOOP
        v_target := task.project_to_return_to(p_user, p_op.id, v_id);
        IF v_target IS NULL THEN
            -- From now on it is in the bin by itself.
            UPDATE task.tasks SET deleted_with = NULL WHERE user_id = p_user AND id = v_id;
            CONTINUE;
        END IF;
        v_task := task.set_deleted(p_user, v_id, 4::smallint, NULL, v_target, p_seq + o_used + 1, p_actor);
        -- The sweeper, which waits for no counter, has removed it meanwhile.
        CONTINUE WHEN v_task.id IS NULL;
        o_used := o_used + 1;
        v_counts[v_task.status] := v_counts[v_task.status] + 1;
    END LOOP;
    IF v_ids <> '{}' THEN
        PERFORM task.count_tasks(p_user, v_counts[1], v_counts[2], v_counts[3]);
        o_more := task.next_to_restore(p_user, p_op.id, 1) <> '{}';
    END IF;
END $$;

-- One write of a project in a transaction of its own: p_kind as in task.write. p_generation, p_fenced: see task.execute; they are null, and p_covered is
-- '{}', if the caller knows of no task that changes. o_replayed: the write changed nothing, because the same request was executed before with this key;
-- then o_project is that of the first answer, or null after a deletion. o_missing, o_more: see task.delete_project. The answer is kept under the key when
-- nothing is left.
CREATE FUNCTION task.write_project(
    p_user uuid, p_kind smallint, p_operation jsonb, p_actor task.author, p_key text, p_hash bytea, p_generation uuid, p_fenced boolean,
    p_covered uuid[], p_limit integer, OUT o_replayed boolean, OUT o_missing uuid[], OUT o_more boolean, OUT o_project task.projects
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_seq    bigint := task.take_seqs(p_user, 1);
    v_id     xid8 := pg_current_xact_id();
    v_op     task.project_operation := jsonb_populate_record(NULL::task.project_operation, p_operation);
    v_used   integer := 1;
    v_answer jsonb;
    v_done   record;
BEGIN
    IF p_generation IS NOT NULL THEN
        PERFORM FROM task.cache_state WHERE generation = p_generation AND (mode > 1) = p_fenced;
        IF NOT FOUND THEN
            PERFORM task.refuse('TM007', 0);
        END IF;
        IF NOT p_fenced THEN
            p_covered := NULL;
        END IF;
    END IF;
    o_replayed := false;
    o_more := false;
    IF p_key IS NOT NULL THEN
        v_answer := task.kept_answer(p_user, p_key, p_hash);
        IF v_answer IS NOT NULL THEN
            o_replayed := true;
            SELECT kept.* INTO o_project FROM jsonb_populate_recordset(NULL::task.projects, v_answer) AS kept;
            PERFORM task.return_seqs(p_user, 1);
            RETURN;
        END IF;
    END IF;
    CASE p_kind
        WHEN 1 THEN o_project := task.create_project(p_user, v_op, v_seq, p_actor);
        WHEN 2 THEN SELECT * INTO v_done FROM task.update_project(p_user, v_op, v_seq, p_actor);
        WHEN 3 THEN SELECT * INTO v_done FROM task.delete_project(p_user, v_op, v_seq, p_actor, p_covered, p_limit);
        WHEN 4 THEN SELECT * INTO v_done FROM task.undelete_project(p_user, v_op, v_seq, p_actor, p_covered, p_limit);
        WHEN 10 THEN SELECT * INTO v_done FROM task.place_project(p_user, v_op, v_seq, p_actor);
    END CASE;
    IF p_kind <> 1 THEN
        o_project := v_done.o_project;
        v_used := v_done.o_used;
    END IF;
    IF p_kind IN (3, 4) THEN
        o_missing := v_done.o_missing;
        o_more := v_done.o_more;
    END IF;
    IF v_used <> 1 THEN
        PERFORM task.return_seqs(p_user, 1 - v_used);
    END IF;
    IF p_key IS NOT NULL AND o_missing IS NULL AND NOT o_more THEN
        v_answer := CASE WHEN p_kind = 3 THEN '[]' ELSE jsonb_build_array(to_jsonb(o_project)) END;
        PERFORM task.keep_answer(p_user, p_key, p_hash, v_answer);
    END IF;
END $$;
