"""Bugs of webhooks that get changes twice, late or never, or requests that go where they must not."""

from typing import Final

from tests.planted.bug import Bug

MIGRATION: Final = "task_service/migrations/0017_webhooks.sql"
POSTING: Final = "task_service/webhooks/posting.py"
TARGETS: Final = "task_service/webhooks/targets.py"
SENDING: Final = "task_service/webhooks/sending.py"
RESTORE: Final = "helm/task-manager/charts/backup/files/after-restore.sql"
SENDING_TESTS: Final = "tests/task_service/webhooks/test_sending.py"
POSTING_TESTS: Final = "tests/task_service/webhooks/test_posting.py"
TARGETS_TESTS: Final = "tests/task_service/webhooks/test_targets.py"

WEBHOOK_BUGS: Final = (
    Bug(
        "a webhook is taken although another worker sends to it",
        MIGRATION,
        "       AND (lease = p_lease OR leased_until IS NULL OR leased_until <= v_now)\n",
        "",
        (SENDING_TESTS, "-k", "killed_worker or workers_at_once"),
    ),
    Bug(
        "a worker goes on sending to a webhook that was paused",
        MIGRATION,
        "AND v_new.state = 1 AND v_new.version = p_version",
        "",
        (SENDING_TESTS, "-k", "nothing_is_sent_after"),
    ),
    Bug(
        "what failed is passed over",
        MIGRATION,
        "    IF v_holds AND p_result < 2 AND p_seq > v_new.told_seq THEN",
        "    IF v_holds AND p_seq > v_new.told_seq THEN",
        (SENDING_TESTS, "-k", "what_failed"),
    ),
    Bug(
        "a slow receiver delays the others",
        SENDING,
        "                self._start(self._serve(key))",
        "                await self._serve(key)",
        (SENDING_TESTS, "-k", "hangs_delays_no_other"),
    ),
    Bug(
        "a killed worker delays its webhooks by more than 2 s",
        SENDING,
        "LEASE_SECONDS: Final = 1.5",
        "LEASE_SECONDS: Final = 3.0",
        (SENDING_TESTS, "-k", "delays_a_webhook"),
    ),
    Bug(
        "one public address of a name is enough",
        POSTING,
        "not all(is_allowed(address, self._allowed) for address in addresses)",
        "not any(is_allowed(address, self._allowed) for address in addresses)",
        (POSTING_TESTS, "-k", "private_address"),
    ),
    Bug("a restore keeps webhooks active", RESTORE, " WHERE state = 1;", " WHERE false;", ("tests/deploy/test_restore.py", "-k", "webhooks")),
    Bug("the sender follows redirects", POSTING, "allow_redirects=False", "allow_redirects=True", (POSTING_TESTS, "-k", "redirect")),
    Bug(
        "an IPv4 address within an IPv6 address is not seen",
        TARGETS,
        "    return address if inner is None else inner",
        "    return address",
        (TARGETS_TESTS, "-k", "not_public or public_address"),
    ),
)
