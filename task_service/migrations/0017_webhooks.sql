-- Webhooks (docs/integrations.md): each is a place in its user's change log, up to which it has been told.

CREATE TABLE task.webhooks (
    user_id              uuid        NOT NULL,
    id                   uuid        NOT NULL,
    url                  text        NOT NULL,
    description          text        NOT NULL,
    event_types          text[]      NOT NULL,
    state                smallint    NOT NULL,   -- 1 ACTIVE, 2 PAUSED, 3 DISABLED
    disabled_reason      text        NOT NULL,
    created_at           timestamptz NOT NULL,
    updated_at           timestamptz NOT NULL,
    last_success_at      timestamptz,
    last_failure_at      timestamptz,
    last_failure_status  integer     NOT NULL,
    last_failure_error   text        NOT NULL,
    version              bigint      NOT NULL,
    -- Encrypted under KEY_ENCRYPTION_KEY: see servicekit/access/seal.py.
    secret               bytea       NOT NULL,
    old_secret           bytea,
    old_secret_until     timestamptz,
    -- What follows is the sender's. The number of the last change that was told or passed.
    told_seq             bigint      NOT NULL,
    -- How many attempts have failed to tell the next one, since when, and not before when the next attempt begins.
    failures             integer     NOT NULL,
    failing_since        timestamptz,
    next_at              timestamptz NOT NULL,
    -- Who sends now, and until when nobody else may.
    lease                uuid,
    leased_until         timestamptz,
    -- How many attempts there were.
    attempts             bigint      NOT NULL,
    PRIMARY KEY (user_id, id)
);
CREATE INDEX webhooks_by_next_at ON task.webhooks (next_at) WHERE state = 1;

-- The attempts to send. outcome: 0 a test that waits for a worker, 1 a test that a worker sends, 2 succeeded, 3 failed.
CREATE TABLE task.webhook_deliveries (
    user_id     uuid        NOT NULL,
    webhook_id  uuid        NOT NULL,
    id          uuid        NOT NULL,
    message_id  text        NOT NULL,
    type        text        NOT NULL,
    attempt     integer     NOT NULL,
    sent_at     timestamptz NOT NULL,
    duration_ms integer     NOT NULL,
    outcome     smallint    NOT NULL,
    http_status integer     NOT NULL,
    error       text        NOT NULL,
    PRIMARY KEY (user_id, webhook_id, id)
);
CREATE INDEX webhook_deliveries_by_sent_at ON task.webhook_deliveries (sent_at);
CREATE INDEX webhook_tests ON task.webhook_deliveries (sent_at) WHERE outcome = 0;

CREATE TYPE task.webhook_operation AS (
    id uuid, versions bigint[], mask text[], url text, description text, event_types text[], state smallint
);

-- What a write is refused with, in addition to 0015_project_writes.sql: TM030 there is no such webhook, TM031 there are as many as a user may have,
-- TM032 a test of the webhook is under way.

-- One write of a webhook: p_kind 1 creates, 2 updates, 3 deletes, 5 sets another secret. It locks the user's counter, as each write does, so that there
-- are no two writes of a user at once. o_replayed: see task.write_project. The sender changes the row without the lock of the counter.
CREATE FUNCTION task.write_webhook(
    p_user uuid, p_kind smallint, p_operation jsonb, p_secret bytea, p_key text, p_hash bytea, OUT o_replayed boolean, OUT o_webhook task.webhooks
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_last   bigint := task.take_seqs(p_user, 0);
    v_op     task.webhook_operation := jsonb_populate_record(NULL::task.webhook_operation, p_operation);
    v_now    timestamptz := clock_timestamp();
    v_old    task.webhooks;
    v_answer jsonb;
BEGIN
    o_replayed := false;
    IF p_key IS NOT NULL THEN
        v_answer := task.kept_answer(p_user, p_key, p_hash);
        IF v_answer IS NOT NULL THEN
            o_replayed := true;
            SELECT kept.* INTO o_webhook FROM jsonb_populate_recordset(NULL::task.webhooks, v_answer) AS kept;
            RETURN;
        END IF;
    END IF;
    IF p_kind = 1 THEN
        o_webhook := task.create_webhook(p_user, v_op, p_secret, v_last);
    ELSE
        SELECT * INTO v_old FROM task.webhooks WHERE user_id = p_user AND id = v_op.id FOR UPDATE;
        IF NOT FOUND THEN
            PERFORM task.refuse('TM030', 0);
        END IF;
        IF v_old.version <> ALL (v_op.versions) THEN
            PERFORM task.refuse_version(v_old.version);
        END IF;
        v_now := greatest(v_now, v_old.updated_at);
        CASE p_kind
            WHEN 2 THEN o_webhook := task.update_webhook(v_old, v_op, v_last, v_now);
            WHEN 3 THEN
                DELETE FROM task.webhooks WHERE user_id = p_user AND id = v_op.id;
                DELETE FROM task.webhook_deliveries WHERE user_id = p_user AND webhook_id = v_op.id;
                o_webhook := v_old;
            WHEN 5 THEN
                UPDATE task.webhooks
                   SET secret = p_secret, old_secret = v_old.secret, old_secret_until = v_now + interval '24 hours', updated_at = v_now,
                       version = version + 1
                 WHERE user_id = p_user AND id = v_op.id
                RETURNING * INTO o_webhook;
        END CASE;
    END IF;
    IF p_key IS NOT NULL THEN
        v_answer := CASE WHEN p_kind = 3 THEN '[]' ELSE jsonb_build_array(to_jsonb(o_webhook)) END;
        PERFORM task.keep_answer(p_user, p_key, p_hash, v_answer);
    END IF;
END $$;

CREATE FUNCTION task.create_webhook(p_user uuid, p_op task.webhook_operation, p_secret bytea, p_last bigint)
RETURNS task.webhooks LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now     timestamptz := clock_timestamp();
    v_count   bigint;
    v_webhook task.webhooks;
BEGIN
    SELECT count(*) INTO v_count FROM task.webhooks WHERE user_id = p_user;
    IF v_count >= 10 THEN
        PERFORM task.refuse('TM031', 0);
    END IF;
    INSERT INTO task.webhooks (user_id, id, url, description, event_types, state, disabled_reason, created_at, updated_at, last_failure_status,
                               last_failure_error, version, secret, told_seq, failures, next_at, attempts)
    VALUES (p_user, p_op.id, p_op.url, p_op.description, p_op.event_types, p_op.state, '', v_now, v_now, 0, '', 1, p_secret, p_last, 0, v_now, 0)
    RETURNING * INTO v_webhook;
    RETURN v_webhook;
END $$;

-- Whether the log still has each change behind this number. p_last: the last number.
CREATE FUNCTION task.log_is_whole(p_user uuid, p_told bigint, p_last bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN p_told = p_last OR EXISTS (SELECT FROM task.changes WHERE user_id = p_user AND seq = p_told + 1);
END $$;

-- Sets what the mask names. Setting what is already so changes nothing. A webhook that becomes active, or gets another URL, is tried at once, and begins
-- another 24 hours. If the log no longer has what comes next, it continues from now.
CREATE FUNCTION task.update_webhook(p_old task.webhooks, p_op task.webhook_operation, p_last bigint, p_now timestamptz)
RETURNS task.webhooks LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_new task.webhooks := p_old;
BEGIN
    IF 'url' = ANY (p_op.mask) THEN v_new.url := p_op.url; END IF;
    IF 'description' = ANY (p_op.mask) THEN v_new.description := p_op.description; END IF;
    IF 'event_types' = ANY (p_op.mask) THEN v_new.event_types := p_op.event_types; END IF;
    IF 'state' = ANY (p_op.mask) THEN v_new.state := p_op.state; END IF;
    IF v_new IS NOT DISTINCT FROM p_old THEN
        RETURN p_old;
    END IF;
    IF v_new.state <> 3 THEN
        v_new.disabled_reason := '';
    END IF;
    IF v_new.url <> p_old.url OR (v_new.state = 1 AND p_old.state <> 1) THEN
        v_new.failures := 0;
        v_new.failing_since := NULL;
        v_new.next_at := p_now;
    END IF;
    IF v_new.state = 1 AND NOT task.log_is_whole(p_old.user_id, p_old.told_seq, p_last) THEN
        v_new.told_seq := p_last;
        v_new.last_failure_at := p_now;
        v_new.last_failure_status := 0;
        v_new.last_failure_error := task.skipped();
    END IF;
    UPDATE task.webhooks
       SET url = v_new.url, description = v_new.description, event_types = v_new.event_types, state = v_new.state,
           disabled_reason = v_new.disabled_reason, failures = v_new.failures, failing_since = v_new.failing_since, next_at = v_new.next_at,
           told_seq = v_new.told_seq, last_failure_at = v_new.last_failure_at, last_failure_status = v_new.last_failure_status,
           last_failure_error = v_new.last_failure_error, updated_at = p_now, version = version + 1
     WHERE user_id = p_old.user_id AND id = p_old.id
    RETURNING * INTO v_new;
    RETURN v_new;
END $$;

CREATE FUNCTION task.skipped() RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT 'Changes were skipped: the change log no longer had them.'
$$;

-- A test that waits for a worker. Refuses another one while one is under way.
CREATE FUNCTION task.request_test(p_user uuid, p_webhook uuid, p_id uuid, p_message text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    PERFORM FROM task.webhooks WHERE user_id = p_user AND id = p_webhook FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM task.refuse('TM030', 0);
    END IF;
    PERFORM FROM task.webhook_deliveries
      WHERE user_id = p_user AND webhook_id = p_webhook AND outcome < 2 AND sent_at > v_now - interval '10 seconds';
    IF FOUND THEN
        PERFORM task.refuse('TM032', 0);
    END IF;
    INSERT INTO task.webhook_deliveries (user_id, webhook_id, id, message_id, type, attempt, sent_at, duration_ms, outcome, http_status, error)
    VALUES (p_user, p_webhook, p_id, p_message, 'ping', 1, v_now, 0, 0, 0, '');
END $$;

-- What follows is called by the worker, and executes with the rights of its owner. The role of the worker may call these functions and read none of the
-- tables, so it sees the changes of users with webhooks alone.

-- Webhooks with something to tell, that nobody tells just now. Those whose last attempt has failed come last.
CREATE FUNCTION task.due_webhooks(p_limit integer) RETURNS TABLE (o_user uuid, o_id uuid, o_failures integer)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY
        SELECT w.user_id, w.id, w.failures FROM task.webhooks AS w JOIN task.counters AS c ON c.user_id = w.user_id
         WHERE w.state = 1 AND w.next_at <= v_now AND (w.leased_until IS NULL OR w.leased_until <= v_now)
           AND c.last_seq <> w.told_seq AND c.closed_at IS NULL
         ORDER BY w.failures > 0, w.next_at LIMIT p_limit;
END $$;

-- Takes a webhook under a lease, for p_seconds, unless another lease holds, and returns the next changes, at most p_limit, of at most p_bytes together
-- unless it is one. Without a row there is nothing to do.
CREATE FUNCTION task.take_webhook(p_user uuid, p_id uuid, p_lease uuid, p_seconds double precision, p_limit integer, p_bytes integer)
RETURNS TABLE (
    o_url text, o_event_types text[], o_secret bytea, o_old_secret bytea, o_version bigint, o_failures integer, o_last bigint,
    o_seq bigint, o_kind smallint, o_at timestamptz, o_changed_fields text[], o_project jsonb, o_task task.tasks
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_now    timestamptz := clock_timestamp();
    v_until  timestamptz := v_now + p_seconds * interval '1 second';
    v_told   bigint;
    v_bytes  bigint := 0;
    v_change record;
BEGIN
    SELECT last_seq INTO o_last FROM task.counters WHERE user_id = p_user AND closed_at IS NULL;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE task.webhooks SET lease = p_lease, leased_until = v_until
     WHERE user_id = p_user AND id = p_id AND state = 1 AND next_at <= v_now
       AND (lease = p_lease OR leased_until IS NULL OR leased_until <= v_now)
    RETURNING url, event_types, secret, CASE WHEN old_secret_until > v_now THEN old_secret END, version, failures, told_seq
         INTO o_url, o_event_types, o_secret, o_old_secret, o_version, o_failures, v_told;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF v_told <> o_last AND NOT task.log_is_whole(p_user, v_told, o_last) THEN
        UPDATE task.webhooks
           SET told_seq = o_last, last_failure_at = v_now, last_failure_status = 0, last_failure_error = task.skipped(), failures = 0,
               failing_since = NULL
         WHERE user_id = p_user AND id = p_id;
        v_told := o_last;
    END IF;
    FOR v_change IN
        SELECT seq, kind, at, changed_fields, is_project, snapshot, octet_length(snapshot::text) AS bytes FROM task.changes
         WHERE user_id = p_user AND seq > v_told AND seq <= v_told + p_limit ORDER BY seq
    LOOP
        EXIT WHEN v_bytes > 0 AND v_bytes + v_change.bytes > p_bytes;
        v_bytes := v_bytes + v_change.bytes;
        o_seq := v_change.seq;
        o_kind := v_change.kind;
        o_at := v_change.at;
        o_changed_fields := v_change.changed_fields;
        o_project := CASE WHEN v_change.is_project THEN v_change.snapshot END;
        o_task := CASE WHEN NOT v_change.is_project THEN jsonb_populate_record(NULL::task.tasks, v_change.snapshot) END;
        -- A change that was committed after the counter was read.
        o_last := greatest(o_last, o_seq);
        RETURN NEXT;
    END LOOP;
    IF v_bytes = 0 THEN
        UPDATE task.webhooks SET lease = NULL, leased_until = NULL WHERE user_id = p_user AND id = p_id AND lease = p_lease;
    END IF;
END $$;

CREATE FUNCTION task.log_delivery(
    p_user uuid, p_webhook uuid, p_id uuid, p_message text, p_type text, p_attempt integer, p_sent timestamptz, p_milliseconds integer,
    p_succeeded boolean, p_status integer, p_error text, p_number bigint
) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_last uuid;
BEGIN
    INSERT INTO task.webhook_deliveries (user_id, webhook_id, id, message_id, type, attempt, sent_at, duration_ms, outcome, http_status, error)
    VALUES (p_user, p_webhook, p_id, p_message, p_type, p_attempt, p_sent, p_milliseconds, CASE WHEN p_succeeded THEN 2 ELSE 3 END, p_status,
            p_error);
    -- No more than 1 000 are shown, and so few more are kept.
    IF p_number % 100 = 0 THEN
        SELECT id INTO v_last FROM task.webhook_deliveries WHERE user_id = p_user AND webhook_id = p_webhook ORDER BY id DESC OFFSET 1000 LIMIT 1;
        DELETE FROM task.webhook_deliveries WHERE user_id = p_user AND webhook_id = p_webhook AND id <= v_last;
    END IF;
END $$;

-- Records what a lease has done: it has passed the changes up to p_seq, and p_id, if it is set, is an attempt to send the last of them. p_result: 0 there
-- was no attempt, 1 it succeeded, 2 it failed and is repeated after p_seconds at the earliest, 3 the receiver does not want any more. p_release: the lease
-- ends. Returns whether the lease still holds, for p_lease_seconds from now on, and the webhook is as it was in p_version; NULL if neither is so because
-- the attempt has disabled the webhook.
CREATE FUNCTION task.settle_webhook(
    p_user uuid, p_webhook uuid, p_lease uuid, p_lease_seconds double precision, p_version bigint, p_seq bigint, p_result smallint,
    p_seconds double precision, p_release boolean, p_id uuid, p_message text, p_type text, p_attempt integer, p_sent timestamptz,
    p_milliseconds integer, p_status integer, p_error text
) RETURNS boolean LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_now     timestamptz := clock_timestamp();
    v_next    timestamptz := v_now + p_seconds * interval '1 second';
    v_until   timestamptz := v_now + p_lease_seconds * interval '1 second';
    v_new     task.webhooks;
    v_version bigint;
    v_holds   boolean;
    v_disabled boolean := false;
BEGIN
    SELECT * INTO v_new FROM task.webhooks WHERE user_id = p_user AND id = p_webhook FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    v_holds := v_new.lease IS NOT DISTINCT FROM p_lease;
    v_version := v_new.version;
    IF p_result <> 0 THEN
        v_new.attempts := v_new.attempts + 1;
        PERFORM task.log_delivery(p_user, p_webhook, p_id, p_message, p_type, p_attempt, p_sent, p_milliseconds, p_result = 1, p_status, p_error,
                                  v_new.attempts);
    END IF;
    IF p_result = 1 THEN
        v_new.last_success_at := v_now;
    ELSIF p_result > 1 THEN
        v_new.last_failure_at := v_now;
        v_new.last_failure_status := p_status;
        v_new.last_failure_error := p_error;
    END IF;
    IF v_holds AND p_result < 2 AND p_seq > v_new.told_seq THEN
        v_new.told_seq := p_seq;
        v_new.failures := 0;
        v_new.failing_since := NULL;
    ELSIF v_holds AND p_result > 1 AND v_version = p_version THEN
        v_new.failures := v_new.failures + 1;
        v_new.failing_since := coalesce(v_new.failing_since, p_sent);
        v_new.next_at := v_next;
        IF v_new.state = 1 AND (p_result = 3 OR v_next > v_new.failing_since + interval '24 hours') THEN
            v_new.state := 3;
            v_new.disabled_reason := CASE WHEN p_result = 3 THEN 'The receiver answered 410.'
                                          ELSE 'No attempt succeeded for 24 hours. The last one: ' || p_error END;
            v_new.updated_at := greatest(v_now, v_new.updated_at);
            v_new.version := v_new.version + 1;
            v_disabled := true;
        END IF;
    END IF;
    IF v_holds THEN
        v_holds := NOT p_release AND p_result < 2 AND v_new.state = 1 AND v_new.version = p_version
                   AND EXISTS (SELECT FROM task.counters WHERE user_id = p_user AND closed_at IS NULL);
        v_new.lease := CASE WHEN v_holds THEN p_lease END;
        v_new.leased_until := CASE WHEN v_holds THEN v_until END;
    END IF;
    UPDATE task.webhooks
       SET told_seq = v_new.told_seq, failures = v_new.failures, failing_since = v_new.failing_since, next_at = v_new.next_at, state = v_new.state,
           disabled_reason = v_new.disabled_reason, updated_at = v_new.updated_at, version = v_new.version, lease = v_new.lease,
           leased_until = v_new.leased_until, attempts = v_new.attempts, last_success_at = v_new.last_success_at,
           last_failure_at = v_new.last_failure_at, last_failure_status = v_new.last_failure_status, last_failure_error = v_new.last_failure_error
     WHERE user_id = p_user AND id = p_webhook;
    RETURN CASE WHEN NOT v_disabled THEN v_holds END;
END $$;

-- Extends leases, and returns those that no other one has followed.
CREATE FUNCTION task.renew_webhooks(p_users uuid[], p_ids uuid[], p_leases uuid[], p_seconds double precision)
RETURNS TABLE (o_user uuid, o_id uuid) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_until timestamptz := clock_timestamp() + p_seconds * interval '1 second';
BEGIN
    RETURN QUERY
        UPDATE task.webhooks AS w SET leased_until = v_until FROM unnest(p_users, p_ids, p_leases) AS held (user_id, id, lease)
         WHERE w.user_id = held.user_id AND w.id = held.id AND w.lease = held.lease
        RETURNING w.user_id, w.id;
END $$;

-- Tests that wait for a worker. One that has waited for 10 seconds waits for nobody any more.
CREATE FUNCTION task.waiting_tests(p_limit integer) RETURNS TABLE (o_user uuid, o_webhook uuid, o_id uuid) LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_since timestamptz := clock_timestamp() - interval '10 seconds';
BEGIN
    RETURN QUERY
        SELECT d.user_id, d.webhook_id, d.id FROM task.webhook_deliveries AS d WHERE d.outcome = 0 AND d.sent_at > v_since
         ORDER BY d.sent_at LIMIT p_limit;
END $$;

-- Takes a test, unless another worker has taken it.
CREATE FUNCTION task.take_test(
    p_user uuid, p_webhook uuid, p_id uuid, OUT o_url text, OUT o_secret bytea, OUT o_old_secret bytea, OUT o_message text, OUT o_at timestamptz
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    UPDATE task.webhook_deliveries SET outcome = 1 WHERE user_id = p_user AND webhook_id = p_webhook AND id = p_id AND outcome = 0
    RETURNING message_id, sent_at INTO o_message, o_at;
    IF FOUND THEN
        SELECT url, secret, CASE WHEN old_secret_until > v_now THEN old_secret END INTO o_url, o_secret, o_old_secret
          FROM task.webhooks WHERE user_id = p_user AND id = p_webhook;
    END IF;
END $$;

CREATE FUNCTION task.settle_test(
    p_user uuid, p_webhook uuid, p_id uuid, p_sent timestamptz, p_milliseconds integer, p_succeeded boolean, p_status integer, p_error text
) RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE task.webhook_deliveries
       SET sent_at = p_sent, duration_ms = p_milliseconds, outcome = CASE WHEN p_succeeded THEN 2 ELSE 3 END, http_status = p_status, error = p_error
     WHERE user_id = p_user AND webhook_id = p_webhook AND id = p_id AND outcome = 1;
END $$;

REVOKE ALL ON FUNCTION
    task.due_webhooks(integer), task.take_webhook(uuid, uuid, uuid, double precision, integer, integer),
    task.settle_webhook(uuid, uuid, uuid, double precision, bigint, bigint, smallint, double precision, boolean, uuid, text, text, integer, timestamptz,
                        integer, integer, text),
    task.renew_webhooks(uuid[], uuid[], uuid[], double precision), task.waiting_tests(integer), task.take_test(uuid, uuid, uuid),
    task.settle_test(uuid, uuid, uuid, timestamptz, integer, boolean, integer, text)
    FROM PUBLIC;

-- See 0013_projects.sql: the same, with webhooks.
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
    v_removed := v_removed + v_rows;
    DELETE FROM task.webhooks WHERE user_id = p_user;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    v_removed := v_removed + v_rows;
    DELETE FROM task.webhook_deliveries WHERE user_id = p_user AND id IN (SELECT id FROM task.webhook_deliveries WHERE user_id = p_user LIMIT p_limit);
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
        AND NOT EXISTS (SELECT FROM task.webhooks WHERE user_id = p_user)
        AND NOT EXISTS (SELECT FROM task.webhook_deliveries WHERE user_id = p_user)
    THEN
        DELETE FROM task.account_removals WHERE user_id = p_user;
        o_left := 'none';
    END IF;
END $$;

-- See 0013_projects.sql: the same, with the attempts to send that are older than 7 days.
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
    SELECT array_agg(user_id), array_agg(id) INTO v_users, v_ids
      FROM (SELECT user_id, id FROM task.webhook_deliveries WHERE sent_at < now() - interval '7 days' ORDER BY sent_at LIMIT p_limit) AS found;
    IF v_users IS NOT NULL THEN
        BEGIN
            DELETE FROM task.webhook_deliveries AS d USING unnest(v_users, v_ids) AS found (user_id, id)
             WHERE d.user_id = found.user_id AND d.id = found.id;
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
