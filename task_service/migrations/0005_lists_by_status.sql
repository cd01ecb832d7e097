-- Lists from half of the indexes. There are three statuses: an index that begins with the status serves a list of all tasks, of open ones and of those of
-- one status alike, read once for each status and merged. So none is needed beside it for all tasks, and none for the open ones.

DROP INDEX task.tasks_by_created_at, task.open_tasks_by_created_at;  -- tasks_by_status serves them
DROP INDEX task.tasks_by_due_date, task.open_tasks_by_due_date;
DROP INDEX task.tasks_by_priority_and_due_date, task.open_tasks_by_priority_and_due_date;
DROP INDEX task.tasks_by_priority;
CREATE INDEX tasks_by_priority ON task.tasks (user_id, status, priority, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX tasks_by_due_date ON task.tasks (user_id, status, COALESCE(due_date, 'infinity'), id) WHERE deleted_at IS NULL;
CREATE INDEX tasks_by_priority_and_due_date ON task.tasks (user_id, status, (-priority), COALESCE(due_date, 'infinity'), id) WHERE deleted_at IS NULL;

-- Labels in the same way, but only by whether the task is completed: a task that is begun need not write its labels again.
DROP INDEX task.open_task_labels;
ALTER TABLE task.task_labels DROP CONSTRAINT task_labels_pkey, ADD PRIMARY KEY (user_id, label, completed, created_at, task_id);

-- Those of new tasks all at once, which for a thousand of them is a third of the price.
CREATE FUNCTION task.keep_labels_of_new() RETURNS trigger LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO task.task_labels (user_id, label, completed, created_at, task_id)
    SELECT DISTINCT user_id, label, status = 3, created_at, id FROM made CROSS JOIN unnest(labels) AS label WHERE deleted_at IS NULL;
    RETURN NULL;
END $$;
DROP TRIGGER keep_labels_of_new ON task.tasks;
CREATE TRIGGER keep_labels_of_new AFTER INSERT ON task.tasks REFERENCING NEW TABLE AS made FOR EACH STATEMENT EXECUTE FUNCTION task.keep_labels_of_new();

-- What is left to the trigger on each row.
CREATE OR REPLACE FUNCTION task.keep_labels() RETURNS trigger LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF OLD.deleted_at IS NULL THEN
        DELETE FROM task.task_labels
         WHERE user_id = OLD.user_id AND label = ANY (OLD.labels) AND completed = (OLD.status = 3) AND created_at = OLD.created_at AND task_id = OLD.id;
    END IF;
    IF TG_OP = 'UPDATE' AND NEW.deleted_at IS NULL THEN
        INSERT INTO task.task_labels (user_id, label, completed, created_at, task_id)
        SELECT DISTINCT NEW.user_id, label, NEW.status = 3, NEW.created_at, NEW.id FROM unnest(NEW.labels) AS label;
    END IF;
    RETURN NULL;
END $$;
