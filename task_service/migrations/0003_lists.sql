-- What lists are made from. There are three statuses: an index that begins with the status serves a list of all tasks, of the open ones, and of those of one
-- status alike, which is read once for each status and merged. Each serves an order that people list by, from any place in it; what none of them serves is
-- walked or sorted. An update that touches none of their columns (a title, a description) stays within its page and writes to none of them.
CREATE INDEX tasks_by_status_and_priority ON task.tasks (user_id, status, priority, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX tasks_by_status_and_due_date ON task.tasks (user_id, status, COALESCE(due_date, 'infinity'), id) WHERE deleted_at IS NULL;
-- By priority then due date: the sign turned, so that both keys go one way and a place in the list is one comparison of rows.
CREATE INDEX tasks_by_status_priority_and_due_date ON task.tasks (user_id, status, (-priority), COALESCE(due_date, 'infinity'), id)
    WHERE deleted_at IS NULL;
-- Deleted tasks, of which there are few.
CREATE INDEX deleted_tasks_by_created_at ON task.tasks (user_id, created_at, id) WHERE deleted_at IS NOT NULL;

-- The labels of tasks that are not deleted, in the order of the tasks; the open ones apart from the completed, as the statuses above, but so that a task
-- which is begun need not write its labels again. Written by the triggers below and nobody else. No foreign key: its check at each row, and the index by
-- task that its cascade needs, would cost a write more than the table itself; the trigger on DELETE does the same.
CREATE TABLE task.task_labels (
    user_id    uuid        NOT NULL,
    label      text        NOT NULL,
    completed  boolean     NOT NULL,
    created_at timestamptz NOT NULL,
    task_id    uuid        NOT NULL,
    PRIMARY KEY (user_id, label, completed, created_at, task_id)
);

-- Those of new tasks all at once, which for a thousand of them costs less; for one without labels it is a call for nothing.
CREATE FUNCTION task.keep_labels_of_new() RETURNS trigger LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO task.task_labels (user_id, label, completed, created_at, task_id)
    SELECT DISTINCT user_id, label, status = 3, created_at, id FROM made CROSS JOIN unnest(labels) AS label WHERE deleted_at IS NULL;
    RETURN NULL;
END $$;

CREATE FUNCTION task.keep_labels() RETURNS trigger LANGUAGE plpgsql VOLATILE AS $$
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

CREATE TRIGGER keep_labels_of_new AFTER INSERT ON task.tasks REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION task.keep_labels_of_new();
-- The conditions spare the call to a task without labels, and to a change of something else.
CREATE TRIGGER keep_labels_of_changed AFTER UPDATE ON task.tasks FOR EACH ROW
    WHEN ((OLD.labels <> '{}' OR NEW.labels <> '{}') AND (OLD.labels, OLD.status = 3, OLD.deleted_at, OLD.created_at, OLD.id, OLD.user_id)
          IS DISTINCT FROM (NEW.labels, NEW.status = 3, NEW.deleted_at, NEW.created_at, NEW.id, NEW.user_id))
    EXECUTE FUNCTION task.keep_labels();
CREATE TRIGGER keep_labels_of_removed AFTER DELETE ON task.tasks FOR EACH ROW
    WHEN (OLD.labels <> '{}' AND OLD.deleted_at IS NULL) EXECUTE FUNCTION task.keep_labels();

INSERT INTO task.task_labels (user_id, label, completed, created_at, task_id)
SELECT DISTINCT user_id, label, status = 3, created_at, id FROM task.tasks CROSS JOIN unnest(labels) AS label WHERE deleted_at IS NULL;

-- Last, so that lists have an index all the time; tasks_by_status stays, and now serves the newest first as well.
DROP INDEX task.tasks_by_created_at, task.tasks_by_priority, task.tasks_by_due_date;
