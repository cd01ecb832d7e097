"""What the role of the worker may do with the schema. What the worker does beyond that, these functions do with the rights of their owner."""

from typing import Final

from servicekit.stores.rights import WorkerRights

_SETTLE: Final = (
    *("uuid, uuid, uuid, double precision, bigint, bigint, smallint, double precision, boolean", "uuid, text, text, integer, timestamptz"),
    "integer, integer, text",
)
WORKER_RIGHTS: Final = WorkerRights(
    reads=("reminders",),
    calls=(
        "fire_reminders(uuid, integer, boolean)",
        "due_webhooks(integer)",
        "take_webhook(uuid, uuid, uuid, double precision, integer, integer)",
        f"settle_webhook({', '.join(_SETTLE)})",
        "renew_webhooks(uuid[], uuid[], uuid[], double precision)",
        "waiting_tests(integer)",
        "take_test(uuid, uuid, uuid)",
        "settle_test(uuid, uuid, uuid, timestamptz, integer, boolean, integer, text)",
    ),
)
