-- restore.sh runs this before the dump, in the same transaction. psql variables: replace, with_deleted_accounts.
BEGIN;
SET LOCAL client_min_messages = warning;
-- Shorter than PostgreSQL's deadlock_timeout, by default 1 s.
SET LOCAL lock_timeout = '300ms';

-- Locks all tables or none: services that still run lock tables in another order, and PostgreSQL would resolve a deadlock by ending one transaction.
-- So a failed attempt releases all locks. From here on no write is running, and calls of the services wait.
DO $$
DECLARE
    v_table text;
BEGIN
    FOR v_attempt IN 1 .. 200 LOOP
        BEGIN
            FOR v_table IN SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('auth', 'task') ORDER BY 1 LOOP
                EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', v_table);
            END LOOP;
            RETURN;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            PERFORM pg_sleep(random() / 10);
        END;
    END LOOP;
    RAISE EXCEPTION 'the tables are in use and cannot be locked: wait for the end of a backup or a migration, or stop the services';
END $$;

CREATE TEMPORARY TABLE deleted_accounts (user_id uuid PRIMARY KEY) ON COMMIT DROP;
SELECT to_regclass('auth.users') IS NOT NULL AS has_auth, to_regclass('task.counters') IS NOT NULL AS has_task, false AS has_rows \gset
\if :has_task
    SELECT EXISTS (SELECT FROM task.counters) AS has_rows \gset
\endif
\if :has_auth
    SELECT :'has_rows' OR EXISTS (SELECT FROM auth.users) AS has_rows \gset
    INSERT INTO deleted_accounts SELECT DISTINCT user_id FROM auth.events WHERE kind = 2;
\endif
\if :has_rows
    \if :replace
    \else
        DO $$ BEGIN RAISE EXCEPTION 'the database has accounts or tasks, which a restore deletes: if you want this, use --replace'; END $$;
    \endif
\endif

-- This also drops tables of later migrations, which the dump does not contain.
DROP SCHEMA IF EXISTS auth, task CASCADE;

-- Hides the results of the dump's own statements.
\o /dev/null
