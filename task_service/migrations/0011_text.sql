-- Text in Unicode NFC, and lists by title without regard to upper and lower case (docs/adr/0009-lists.md).

-- Waits for the writes that run, and lets no other write run until this transaction ends: see 0006_write_cost.sql. What code from before writes after
-- that stays as it is until it is written again.
LOCK TABLE task.counters IN SHARE ROW EXCLUSIVE MODE;
LOCK TABLE task.tasks IN SHARE ROW EXCLUSIVE MODE;

-- The service normalizes text before it stores it. These are the rows from before. A normalized text is canonically equivalent to the text, so the task
-- keeps its version, and neither the change log nor the caches need to know. A text that would exceed its limit stays as it is.
CREATE FUNCTION task.normalized(p_labels text[]) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT COALESCE(array_agg(label ORDER BY place), '{}')
      FROM (SELECT normalize(label) AS label, min(n) AS place FROM unnest(p_labels) WITH ORDINALITY AS l (label, n) GROUP BY 1) AS each
$$;
UPDATE task.tasks SET title = normalize(title) WHERE title IS NOT NFC NORMALIZED AND char_length(normalize(title)) <= 200;
UPDATE task.tasks SET description = normalize(description)
 WHERE description IS NOT NFC NORMALIZED AND char_length(normalize(description)) <= 10000;
-- The rows of the labels first, while the tasks still have the old ones. A task may have both forms of a label.
INSERT INTO task.task_labels (user_id, label, completed, created_at, task_id)
SELECT user_id, normalize(label), completed, created_at, task_id FROM task.task_labels WHERE label IS NOT NFC NORMALIZED
ON CONFLICT DO NOTHING;
DELETE FROM task.task_labels WHERE label IS NOT NFC NORMALIZED;
-- Label by label, because Citus does not cast an array to text in an UPDATE.
UPDATE task.tasks SET labels = task.normalized(labels) WHERE EXISTS (SELECT FROM unnest(labels) AS label WHERE label IS NOT NFC NORMALIZED);
DROP FUNCTION task.normalized(text[]);

-- By the full case folding of Unicode, code point by code point. The collation pg_unicode_fast is part of PostgreSQL, whatever the database's locale is.
-- The old index goes last, because that locks out reads until the transaction ends. Without it, code from before sorts such lists.
CREATE INDEX tasks_by_status_priority_and_folded_title ON task.tasks
    (user_id, status, (-priority), (casefold(title COLLATE "pg_unicode_fast") COLLATE "C"), id) WHERE deleted_at IS NULL;
DROP INDEX task.tasks_by_status_priority_and_title;
