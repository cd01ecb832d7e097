-- Accounts that were deleted: their counters are closed for good, so that a token still alive writes nothing, and then their rows go.

ALTER TABLE task.counters ADD COLUMN closed_at timestamptz;

-- How far the deletions of accounts, as auth_service tells them, have been carried out.
CREATE TABLE task.deletions (
    single      boolean PRIMARY KEY DEFAULT true CHECK (single),
    last_number bigint NOT NULL
);
INSERT INTO task.deletions (last_number) VALUES (0);

CREATE OR REPLACE FUNCTION task.next_seq(p_user uuid) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_seq bigint;
BEGIN
    INSERT INTO task.counters AS c (user_id, last_seq) VALUES (p_user, 1)
    ON CONFLICT (user_id) DO UPDATE SET last_seq = c.last_seq + 1 WHERE c.closed_at IS NULL
    RETURNING last_seq INTO v_seq;
    IF v_seq IS NULL THEN
        RAISE EXCEPTION 'the account was deleted' USING ERRCODE = 'TM001';
    END IF;
    RETURN v_seq;
END $$;

-- From the commit of this on nothing can be written for the user: it waits for the writes under way, and later ones wait for it.
CREATE FUNCTION task.close_account(p_user uuid) RETURNS void LANGUAGE sql VOLATILE AS $$
    INSERT INTO task.counters AS c (user_id, last_seq, closed_at) VALUES (p_user, 0, clock_timestamp())
    ON CONFLICT (user_id) DO UPDATE SET closed_at = coalesce(c.closed_at, excluded.closed_at)
$$;

-- Removes at most p_limit rows of a closed account from each table. Returns how many it removed.
CREATE FUNCTION task.remove_rows(p_user uuid, p_limit integer) RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_tasks   integer;
    v_changes integer;
BEGIN
    PERFORM FROM task.counters WHERE user_id = p_user AND closed_at IS NOT NULL;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    DELETE FROM task.tasks WHERE user_id = p_user AND id IN (SELECT id FROM task.tasks WHERE user_id = p_user LIMIT p_limit);
    GET DIAGNOSTICS v_tasks = ROW_COUNT;
    DELETE FROM task.changes WHERE user_id = p_user AND seq IN (SELECT seq FROM task.changes WHERE user_id = p_user LIMIT p_limit);
    GET DIAGNOSTICS v_changes = ROW_COUNT;
    RETURN v_tasks + v_changes;
END $$;
