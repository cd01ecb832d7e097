-- A comparison with IS NOT DISTINCT FROM uses no index, so a move read all tasks of its user. Now the list is named by the columns of its index. The order
-- names the column too: PostgreSQL takes the index for sorted by the position only behind a column that equals a value, which NULL does not.

CREATE OR REPLACE FUNCTION task.siblings(
    p_user uuid, p_project uuid, p_parent uuid, p_without uuid, p_position text, p_id uuid, p_behind boolean, p_limit integer
) RETURNS TABLE (o_id uuid, o_position text) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_list text := CASE WHEN p_parent IS NOT NULL THEN 't.parent_id = $2'
                        WHEN p_project IS NOT NULL THEN 't.project_id = $3 AND t.parent_id IS NULL'
                        ELSE 't.project_id IS NULL AND t.parent_id IS NULL' END;
    v_of   text := CASE WHEN p_parent IS NOT NULL THEN 't.parent_id' ELSE 't.project_id' END;
    v_end  uuid := CASE WHEN p_behind THEN 'ffffffff-ffff-ffff-ffff-ffffffffffff' ELSE '00000000-0000-0000-0000-000000000000' END;
BEGIN
    RETURN QUERY EXECUTE format(
        $query$
        SELECT t.id, COALESCE(t.position, '0' || encode(uuid_send(t.id), 'hex')) FROM task.tasks AS t
         WHERE t.user_id = $1 AND %1$s AND t.deleted_at IS NULL AND t.id <> $4
           AND (COALESCE(t.position, '0' || encode(uuid_send(t.id), 'hex')), t.id) %2$s ($5 COLLATE "C", $6)
         ORDER BY %4$s %3$s, COALESCE(t.position, '0' || encode(uuid_send(t.id), 'hex')) %3$s, t.id %3$s LIMIT $7
        $query$, v_list, CASE WHEN p_behind THEN '>' ELSE '<' END, CASE WHEN p_behind THEN 'ASC' ELSE 'DESC' END, v_of
    ) USING p_user, p_parent, p_project, p_without, p_position, coalesce(p_id, v_end), p_limit;
END $$;
