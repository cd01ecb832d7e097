-- After a failover to a standby that lost commits, the cache is OFF and the change log has another epoch (docs/adr/0023-failover.md).

-- As auth.server: the cluster and its timeline. On Citus, those of the coordinator.
CREATE FUNCTION task.server() RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT system_identifier || '/' || left(pg_walfile_name('0/1000000'), 8) FROM pg_control_system());
EXCEPTION
    WHEN object_not_in_prerequisite_state THEN
        RAISE EXCEPTION USING ERRCODE = 'read_only_sql_transaction', MESSAGE = 'this server is a standby';
    WHEN insufficient_privilege OR feature_not_supported THEN
        RETURN 'unknown';
END $$;

-- The server on which the row counts. On another one the row is from before a failover.
ALTER TABLE task.cache_state ADD COLUMN server text NOT NULL DEFAULT '';
UPDATE task.cache_state SET server = task.server();

-- Sets OFF, and gives the change log another epoch, if this is another server. Returns the row afterwards.
CREATE FUNCTION task.follow_server() RETURNS task.cache_state LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_server text := task.server();
    -- Citus refuses a function that differs between servers in the statement.
    v_epoch  uuid := gen_random_uuid();
    v_state  task.cache_state;
BEGIN
    UPDATE task.cache_state
       SET server = v_server, mode = 1, generation = gen_random_uuid(), process = '', replication = '', armed_before = NULL
     WHERE server <> v_server;
    IF FOUND THEN
        UPDATE task.feed SET epoch = v_epoch;
    END IF;
    SELECT * INTO v_state FROM task.cache_state;
    RETURN v_state;
END $$;

-- The epoch of auth_service's events that last_number counts in. Empty: not known yet.
ALTER TABLE task.deletions ADD COLUMN epoch text NOT NULL DEFAULT '';
-- As with two arguments, which code from before uses.
CREATE FUNCTION task.queue_removals(p_users uuid[], p_last_number bigint, p_epoch text) RETURNS void LANGUAGE sql VOLATILE AS $$
    INSERT INTO task.account_removals (user_id) SELECT unnest(p_users) ON CONFLICT DO NOTHING;
    UPDATE task.deletions SET last_number = p_last_number, epoch = p_epoch;
$$;
