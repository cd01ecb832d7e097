-- What stands behind the dump in the transaction of a restore: see restore.sh. Variables of psql: epoch, with_deleted_accounts.
\o

-- Whoever followed the changes is told to list again: numbers of before mean something else now.
UPDATE task.feed SET epoch = :'epoch';

-- New events are numbered beyond all that were ever read, so a reader that was further than the backup misses none.
UPDATE auth.event_counter SET last_number = last_number + 1000000000;

-- Refresh tokens that were used or revoked after the backup would be good again, and access tokens of accounts that are not there any more still are.
-- Keys that were withdrawn after the backup would be back, and the key that they are sealed under may be another by now.
UPDATE auth.sessions SET ended_at = clock_timestamp() WHERE ended_at IS NULL;
DELETE FROM auth.signing_keys;

\if :with_deleted_accounts
\else
    -- Who has deleted their account stays deleted. It is an event, so the tasks follow.
    SELECT 'accounts deleted again, since they were deleted after the backup: ' || count(*) FROM (
        SELECT auth.delete_user(id, password_version) FROM auth.users WHERE id IN (SELECT user_id FROM pg_temp.deleted_accounts) OFFSET 0
    ) AS deleted HAVING count(*) > 0;
\endif
COMMIT;

-- Before the first queries are planned.
SELECT format('ANALYZE %I.%I', schemaname, tablename) FROM pg_catalog.pg_tables WHERE schemaname IN ('auth', 'task') \gexec
