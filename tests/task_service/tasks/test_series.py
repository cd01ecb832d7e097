"""Plans of updates: what an update does not name has no effect, and an update of a task that is not there is refused by the write."""

from dataclasses import replace
from datetime import UTC, date, datetime
from uuid import uuid4

from task_service.due.domain import Anchor
from task_service.tasks.domain import Recurrence, TaskFields
from task_service.tasks.series import independent, needs_task, planned
from task_service.tasks.writes import Update

NOW = datetime(2030, 1, 2, tzinfo=UTC)
FIELDS = TaskFields(title="Pay rent", due_date=NOW, recurrence=Recurrence("FREQ=DAILY", Anchor.DUE))


def test_a_recurrence_that_the_mask_does_not_name_has_no_effect() -> None:
    update = Update(uuid4(), FIELDS, ["title"])
    assert not needs_task(update)
    assert independent(update) == replace(update, fields=replace(FIELDS, recurrence=None))


def test_a_day_that_the_mask_does_not_name_has_no_effect() -> None:
    update = Update(uuid4(), TaskFields(due_date=NOW, due_on=date(2040, 5, 6)), ["due_date"])
    assert not needs_task(update)
    assert independent(update).fields.due_date == NOW


def test_the_plan_for_a_task_that_is_not_there_is_good_for_no_version() -> None:
    """So if the task comes back meanwhile, the update is planned again."""
    (plan,) = planned([Update(uuid4(), FIELDS, ["title", "recurrence"])], {}, NOW, uuid4, lambda _: "task")
    assert (plan.basis, plan.mask, plan.fields.recurrence) == (0, (), None)
