"""Any task is the same after it was encoded and decoded."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from task_service.due.domain import Anchor
from task_service.query.domain import Status
from task_service.tasks.domain import Recurrence, Reminder, Task
from task_service.tasks.messages import encode
from tests.task_service.conftest import decode

times = st.datetimes(min_value=datetime(1, 1, 1, 0, 0, 1), max_value=datetime(9999, 12, 31, 23, 59, 59), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone
text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50)
tasks = st.builds(
    Task,
    user_id=st.uuids(),
    id=st.uuids(),
    title=text,
    description=text,
    status=st.sampled_from(Status),
    priority=st.integers(1, 5),
    due_date=st.none() | times,
    labels=st.lists(text, max_size=20).map(tuple),
    created_at=times,
    updated_at=times,
    completed_at=st.none() | times,
    deleted_at=st.none() | times,
    version=st.integers(1, 2**53),
    project_id=st.none() | st.uuids(),
    parent_id=st.none() | st.uuids(),
    position=st.text("0123456789abcdefghij", min_size=1, max_size=20),
    due_on=st.none(),
    time_zone=st.sampled_from(["", "Europe/Berlin"]),
    recurrence=st.none() | st.builds(Recurrence, st.just("FREQ=DAILY"), st.sampled_from(Anchor), st.none()),
    previous_id=st.none() | st.uuids(),
    next_id=st.none() | st.uuids(),
    reminders=st.lists(st.builds(Reminder, at=times) | st.builds(Reminder, before_due=st.integers(0, 31_622_400)), max_size=5).map(tuple),
)
# A task with due_on has the end of that day as its due_date.
with_days = st.builds(lambda task, day, at: task._replace(due_on=day, due_date=at), tasks, st.dates(), times)


@given(tasks | with_days)
def test_a_task_comes_back_as_it_went(task: Task) -> None:
    assert decode(encode(task)) == task
