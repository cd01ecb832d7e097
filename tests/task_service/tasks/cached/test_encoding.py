"""A value of the cache is an answer that a replica of the version before may have encoded, so its own version must tell which fields it can have."""

from taskmanager.task.v1 import task_pb2

from task_service.tasks.cache import VALUE

# If this fails, Task has another field: let the last byte of VALUE grow by one, and write down both here. Otherwise a replica would return a task
# without the field that a replica of the old version has cached.
VERSION = 4
FIELDS = """
    id user_id title description status priority due_date labels created_at updated_at completed_at deleted_at etag project_id parent_id position
    due_on time_zone due_at recurrence previous_id next_id reminders
"""


def test_a_value_has_the_version_of_the_fields_that_it_can_have() -> None:
    assert (VALUE[-1], {field.name for field in task_pb2.Task.DESCRIPTOR.fields}) == (VERSION, set(FIELDS.split()))
