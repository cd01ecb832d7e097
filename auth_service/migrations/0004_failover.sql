-- After a failover to a standby that lost commits, the log of events is another one (docs/adr/0023-failover.md).

-- Which server this is: the cluster, and its timeline, which each promotion changes. pg_control_checkpoint() would name the timeline from before the
-- promotion until the next checkpoint ends. Any role may call both functions, unless an operator has revoked that or the database only resembles PostgreSQL.
CREATE FUNCTION auth.server() RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT system_identifier || '/' || left(pg_walfile_name('0/1000000'), 8) FROM pg_control_system());
EXCEPTION
    WHEN object_not_in_prerequisite_state THEN
        RAISE EXCEPTION USING ERRCODE = 'read_only_sql_transaction', MESSAGE = 'this server is a standby';
    WHEN insufficient_privilege OR feature_not_supported THEN
        RETURN 'unknown';
END $$;

-- server: the one that has given the log its epoch.
ALTER TABLE auth.event_counter ADD COLUMN epoch uuid NOT NULL DEFAULT gen_random_uuid(), ADD COLUMN server text NOT NULL DEFAULT '';
UPDATE auth.event_counter SET server = auth.server();

-- Gives the log another epoch if this is another server.
CREATE FUNCTION auth.follow_server() RETURNS void LANGUAGE sql VOLATILE AS $$
    UPDATE auth.event_counter SET epoch = gen_random_uuid(), server = auth.server() WHERE server <> auth.server()
$$;
