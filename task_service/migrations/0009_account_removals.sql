-- The deletion of accounts is certain: an account waits in this table until one transaction has found that no row of it is left.

CREATE TABLE task.account_removals (
    user_id   uuid PRIMARY KEY,
    queued_at timestamptz NOT NULL DEFAULT now()
);
-- The accounts that were closed before: code from before could leave rows of them.
INSERT INTO task.account_removals (user_id) SELECT user_id FROM task.counters WHERE closed_at IS NOT NULL;

-- Queues the accounts of a page of events, and stores how far the events were read: both or none.
CREATE FUNCTION task.queue_removals(p_users uuid[], p_last_number bigint) RETURNS void LANGUAGE sql VOLATILE AS $$
    INSERT INTO task.account_removals (user_id) SELECT unnest(p_users) ON CONFLICT DO NOTHING;
    UPDATE task.deletions SET last_number = p_last_number;
$$;

-- From the commit of this on nothing can be written for the user: it waits for the writes under way, and later ones wait for it. It also queues the
-- account, because during a rollout a replica with code from before may close it.
CREATE OR REPLACE FUNCTION task.close_account(p_user uuid) RETURNS void LANGUAGE sql VOLATILE AS $$
    INSERT INTO task.account_removals (user_id) VALUES (p_user) ON CONFLICT DO NOTHING;
    INSERT INTO task.counters AS c (user_id, last_seq, closed_at) VALUES (p_user, 0, clock_timestamp())
    ON CONFLICT (user_id) DO UPDATE SET closed_at = coalesce(c.closed_at, excluded.closed_at);
$$;

-- Closes a queued account if it is not closed, removes at most p_limit of its rows from each table, and takes the account from the queue if no row is
-- left. That a batch has removed no row does not mean that none is left: another transaction may have removed the same rows just before. o_left: 'some',
-- rows may be left; 'none', this transaction has found none; 'elsewhere', the account is not queued, or another transaction removes its rows just now.
CREATE FUNCTION task.remove_account(p_user uuid, p_limit integer, OUT o_removed integer, OUT o_left text) LANGUAGE plpgsql VOLATILE
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
    THEN
        DELETE FROM task.account_removals WHERE user_id = p_user;
        o_left := 'none';
    END IF;
END $$;
