-- restore.sh runs this after the dump, in the same transaction. psql variables: epoch, with_deleted_accounts.
\o

-- With another epoch, task_service rejects the resume tokens from before and clients list again: the old change numbers now belong to other changes.
UPDATE task.feed SET epoch = :'epoch';

-- With another generation, no replica uses what Redis holds from before.
UPDATE task.cache_state SET mode = 1, generation = gen_random_uuid(), process = '', replication = '', armed_before = NULL;

-- New events get numbers above all numbers that were ever read, so a replica that had read further than the backup misses none of them.
UPDATE auth.event_counter SET last_number = last_number + 1000000000;

-- End all sessions and delete all API tokens: refresh tokens that were used or revoked, and API tokens that were deleted, after the backup would be valid
-- again. Delete all signing keys: keys that were withdrawn after the backup would be valid again, access tokens of accounts that no longer exist would
-- still be valid, and the keys may be encrypted under a KEY_ENCRYPTION_KEY that has changed since.
UPDATE auth.sessions SET ended_at = clock_timestamp() WHERE ended_at IS NULL;
DELETE FROM auth.api_tokens;
DELETE FROM auth.signing_keys;

-- Disable all webhooks: one that was deleted, paused or sent elsewhere after the backup would get changes again. Each keeps its place in the log.
UPDATE task.webhooks
   SET state = 3, disabled_reason = 'The database was restored from a backup.', updated_at = clock_timestamp(), version = version + 1,
       lease = NULL, leased_until = NULL
 WHERE state = 1;

\if :with_deleted_accounts
\else
    -- Accounts whose owners deleted them stay deleted. delete_user writes an event, so task_service deletes their tasks.
    SELECT 'accounts deleted again, because they were deleted after the backup: ' || count(*) FROM (
        SELECT auth.delete_user(id, password_version) FROM auth.users WHERE id IN (SELECT user_id FROM pg_temp.deleted_accounts) OFFSET 0
    ) AS deleted HAVING count(*) > 0;
\endif
COMMIT;

-- Updates the planner's statistics before the first queries.
SELECT format('ANALYZE %I.%I', schemaname, tablename) FROM pg_catalog.pg_tables WHERE schemaname IN ('auth', 'task') \gexec
