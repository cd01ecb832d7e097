"""Any task is the same after it was encoded and decoded."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from task_service.query.domain import Status
from task_service.tasks.domain import Task
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
)


@given(tasks)
def test_a_task_comes_back_as_it_went(task: Task) -> None:
    assert decode(encode(task)) == task
