-- What lists are made from. Each index serves an order that people list by, as an index scan from any place in it; what none of them serves is walked or
-- sorted. An update that touches none of their columns (a title, a description) stays within its page and writes to none of them.

-- By priority then due date: the sign turned, so that both keys go one way and a place in the list is one comparison of rows.
CREATE INDEX tasks_by_priority_and_due_date ON task.tasks (user_id, (-priority), COALESCE(due_date, 'infinity'), id) WHERE deleted_at IS NULL;

-- The same without completed tasks, which in time are nearly all of them. By status needs none: its first key tells them apart already.
CREATE INDEX open_tasks_by_created_at ON task.tasks (user_id, created_at, id) WHERE deleted_at IS NULL AND status <> 3;
CREATE INDEX open_tasks_by_due_date ON task.tasks (user_id, COALESCE(due_date, 'infinity'), id) WHERE deleted_at IS NULL AND status <> 3;
CREATE INDEX open_tasks_by_priority_and_due_date ON task.tasks (user_id, (-priority), COALESCE(due_date, 'infinity'), id)
    WHERE deleted_at IS NULL AND status <> 3;

-- Deleted tasks, of which there are few.
CREATE INDEX deleted_tasks_by_created_at ON task.tasks (user_id, created_at, id) WHERE deleted_at IS NOT NULL;

-- The labels of tasks that are not deleted, in the order of the tasks. Written by the triggers below and nobody else. No foreign key: its check at each
-- row, and the index by task that its cascade needs, would cost a write more than the table itself; the trigger on DELETE does the same.
CREATE TABLE task.task_labels (
    user_id    uuid        NOT NULL,
    label      text        NOT NULL,
    created_at timestamptz NOT NULL,
    task_id    uuid        NOT NULL,
    completed  boolean     NOT NULL,
    PRIMARY KEY (user_id, label, created_at, task_id)
);

CREATE INDEX open_task_labels ON task.task_labels (user_id, label, created_at, task_id) WHERE NOT completed;

CREATE FUNCTION task.keep_labels() RETURNS trigger LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.deleted_at IS NULL THEN
        DELETE FROM task.task_labels
         WHERE user_id = OLD.user_id AND label = ANY (OLD.labels) AND created_at = OLD.created_at AND task_id = OLD.id;
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.deleted_at IS NULL THEN
        INSERT INTO task.task_labels (user_id, label, created_at, task_id, completed)
        SELECT DISTINCT NEW.user_id, label, NEW.created_at, NEW.id, NEW.status = 3 FROM unnest(NEW.labels) AS label;
    END IF;
    RETURN NULL;
END $$;

-- Their conditions spare the call to a task without labels, and to a change of something else.
CREATE TRIGGER keep_labels_of_new AFTER INSERT ON task.tasks FOR EACH ROW
    WHEN (NEW.labels <> '{}' AND NEW.deleted_at IS NULL) EXECUTE FUNCTION task.keep_labels();
CREATE TRIGGER keep_labels_of_changed AFTER UPDATE ON task.tasks FOR EACH ROW
    WHEN ((OLD.labels <> '{}' OR NEW.labels <> '{}') AND (OLD.labels, OLD.status = 3, OLD.deleted_at, OLD.created_at, OLD.id, OLD.user_id)
          IS DISTINCT FROM (NEW.labels, NEW.status = 3, NEW.deleted_at, NEW.created_at, NEW.id, NEW.user_id))
    EXECUTE FUNCTION task.keep_labels();
CREATE TRIGGER keep_labels_of_removed AFTER DELETE ON task.tasks FOR EACH ROW
    WHEN (OLD.labels <> '{}' AND OLD.deleted_at IS NULL) EXECUTE FUNCTION task.keep_labels();

INSERT INTO task.task_labels (user_id, label, created_at, task_id, completed)
SELECT DISTINCT user_id, label, created_at, id, status = 3 FROM task.tasks CROSS JOIN unnest(labels) AS label WHERE deleted_at IS NULL;
