-- The names of the API tokens that make changes.

-- Null: a session or the server made the change, or code from before. No row is rewritten. The functions that write changes have no parameter for the
-- name: task.author cannot get another attribute, because code from before casts rows to it. So the name is a setting of the transaction.
ALTER TABLE task.changes ADD COLUMN actor_name text;
ALTER TABLE task.changes ALTER COLUMN actor_name SET DEFAULT nullif(current_setting('task.actor_name', true), '');

-- Who writes, by which call. Until this is called again or the transaction ends, the changes that it logs have this name. p_name: empty or null for none.
CREATE FUNCTION task.author_named(p_user uuid, p_session uuid, p_request text, p_by_api_token boolean, p_name text)
RETURNS task.author LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_name text := set_config('task.actor_name', coalesce(p_name, ''), true);
BEGIN
    RETURN ROW(p_user, p_session, p_request, p_by_api_token)::task.author;
END $$;

-- See 0013_projects.sql. p_writes also has actor_name, unless code from before writes.
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
            n integer, kind smallint, operations jsonb, session_id uuid, request_id text, by_api_token boolean, actor_name text, key text, hash text,
            generation uuid, fenced boolean, covered uuid[])
         ORDER BY n
    LOOP
        o_write := v_write.n;
        o_error := NULL;
        o_message := NULL;
        BEGIN
            SELECT e.o_replayed, e.o_tasks, e.o_used, e.o_missing INTO o_replayed, v_tasks, v_used, v_missing
              FROM task.execute(p_user, v_write.kind, v_write.operations, v_seq,
                                task.author_named(p_user, v_write.session_id, v_write.request_id, coalesce(v_write.by_api_token, false),
                                                  v_write.actor_name),
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
