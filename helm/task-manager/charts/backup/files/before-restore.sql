-- What stands before the dump in the transaction of a restore: see restore.sh. Variables of psql: replace, with_deleted_accounts.
BEGIN;
SET LOCAL lock_timeout = '60s';
SET LOCAL client_min_messages = warning;

CREATE TEMPORARY TABLE deleted_accounts (user_id uuid PRIMARY KEY) ON COMMIT DROP;
SELECT to_regclass('auth.users') IS NOT NULL AS has_auth, to_regclass('task.counters') IS NOT NULL AS has_task, false AS has_rows \gset
\if :has_task
    -- Each write locks a row of it before anything else: from here on none is under way, and none can meet us half-way.
    LOCK TABLE task.counters IN ACCESS EXCLUSIVE MODE;
    SELECT EXISTS (SELECT FROM task.counters) AS has_rows \gset
\endif
\if :has_auth
    LOCK TABLE auth.users IN ACCESS EXCLUSIVE MODE;
    SELECT :'has_rows' OR EXISTS (SELECT FROM auth.users) AS has_rows \gset
    INSERT INTO deleted_accounts SELECT DISTINCT user_id FROM auth.events WHERE kind = 2;
\endif
\if :has_rows
    \if :replace
    \else
        DO $$ BEGIN RAISE EXCEPTION 'the database has accounts or tasks, which a restore removes: if that is meant, say --replace'; END $$;
    \endif
\endif

-- Also what the dump does not know: tables of later migrations.
DROP SCHEMA IF EXISTS auth, task CASCADE;
