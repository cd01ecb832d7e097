-- Lists by priority and then title. The sign of the priority is turned, so that both keys have one direction. The index has titles in it, so a change of
-- a title writes to all indexes (docs/adr/0009-lists.md has the costs).
CREATE INDEX tasks_by_status_priority_and_title ON task.tasks (user_id, status, (-priority), (title COLLATE "C"), id) WHERE deleted_at IS NULL;
