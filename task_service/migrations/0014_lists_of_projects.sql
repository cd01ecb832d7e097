-- no transaction
-- The tasks of a project, or of the inbox, in their order. A task from before has the position of its id: see 0013_projects.sql.
CREATE INDEX CONCURRENTLY IF NOT EXISTS tasks_by_project_and_position ON task.tasks
    (user_id, project_id, (COALESCE(position, '0' || encode(uuid_send(id), 'hex'))), id) WHERE deleted_at IS NULL;
-- The subtasks of a task, in their order.
CREATE INDEX CONCURRENTLY IF NOT EXISTS tasks_by_parent_and_position ON task.tasks
    (user_id, parent_id, (COALESCE(position, '0' || encode(uuid_send(id), 'hex'))), id) WHERE parent_id IS NOT NULL AND deleted_at IS NULL;
-- What went to the bin with a task or a project.
CREATE INDEX CONCURRENTLY IF NOT EXISTS tasks_by_deleted_with ON task.tasks (user_id, deleted_with) WHERE deleted_with IS NOT NULL;
-- The history of a task.
CREATE INDEX CONCURRENTLY IF NOT EXISTS changes_by_task ON task.changes (user_id, task_id, seq);
-- Waits for no write: it reads the log without a lock that excludes them.
ALTER TABLE task.changes VALIDATE CONSTRAINT changes_kind_check;
