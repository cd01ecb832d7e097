"""Bugs of reminders that fire twice or never, and of a worker with too many rights."""

from typing import Final

from tests.planted.bug import Bug

FIRING: Final = "task_service/migrations/0013_projects.sql"
RIGHTS: Final = "servicekit/stores/rights.py"
SERVICE: Final = "task_service/reminders/service.py"
TESTS: Final = "tests/task_service/reminders/test_firing.py"
RIGHTS_TESTS: Final = "tests/servicekit/stores/test_rights.py"

REMINDER_BUGS: Final = (
    Bug(
        "a reminder that was logged stays due",
        FIRING,
        "        DELETE FROM task.reminders WHERE user_id = p_user AND task_id = v_due.task_id AND fire_at = v_due.fire_at;\n",
        "",
        (TESTS, "-k", "logged_once"),
    ),
    Bug(
        "a worker leaves what does not fit in a transaction",
        SERVICE,
        "            if not any(await self._fire_all(due)):\n                return\n",
        "            await self._fire_all(due)\n            return\n",
        (TESTS, "-k", "more_reminders"),
    ),
    Bug(
        "a worker may call every function",
        RIGHTS,
        'f"GRANT EXECUTE ON FUNCTION {self.schema}.{function} TO {self.worker}"',
        'f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {self.schema} TO {self.worker}"',
        (RIGHTS_TESTS, "-k", "nothing_else"),
    ),
    Bug(
        "a worker may read every table",
        RIGHTS,
        'f"GRANT SELECT ON {self.schema}.{table} TO {self.worker}"',
        'f"GRANT SELECT ON ALL TABLES IN SCHEMA {self.schema} TO {self.worker}"',
        (RIGHTS_TESTS, "-k", "nothing_else"),
    ),
)
