"""Bugs of the Python client: its tokens, its streams and its paths."""

from typing import Final

from tests.planted.bug import Bug

CORE: Final = "client/task_manager_client/core.py"
REFRESH_TESTS: Final = "tests/client/test_refresh.py"

CLIENT_BUGS: Final = (
    Bug(
        "a refresh that fails ends the client's stream",
        "client/task_manager_client/async_client.py",
        "except TaskManagerError as error:\n",
        "except __import__('task_manager_client').ConnectionFailed as error:\n",
        ("tests/client/test_watch.py", "-k", "refresh_that_fails"),
    ),
    Bug(
        "a refresh replaces a newer login",
        CORE,
        "        if self._store.load() != old:\n            return False\n",
        "",
        (REFRESH_TESTS, "-k", "newer_login"),
    ),
    Bug(
        "a login does not wait for a refresh",
        CORE,
        "replace the new tokens.\n        release = yield from self._lock()\n",
        "replace the new tokens.\n        release: Release = bool\n",
        (REFRESH_TESTS, "-k", "waits_for_the_lock"),
    ),
    Bug(
        "a refresh waits longer than its token can be used",
        CORE,
        "most_seconds=0.4, patience_seconds=1.0)",
        "most_seconds=0.4)",
        (REFRESH_TESTS, "-k", "short_waits"),
    ),
    Bug(
        "an id leads to another path",
        "client/task_manager_client/operation.py",
        '    return quote(text, safe="")\n',
        "    return text\n",
        ("tests/client/test_calls.py", "-k", "one_segment"),
    ),
    Bug(
        "a day without a time is due at its end in UTC",
        "client/task_manager_client/cli/details.py",
        '{"due_on": at, "time_zone": zone} if zone',
        '{"due_on": at} if zone',
        ("tests/client/test_command_projects.py", "-k", "task_that_repeats"),
    ),
    Bug(
        "tm webhooks listen accepts an old request",
        "client/task_manager_client/cli/signatures.py",
        "abs(now - int(timestamp)) > TOLERANCE_SECONDS",
        "False",
        ("tests/client/test_webhook_receiver.py", "-k", "not_verified"),
    ),
    Bug(
        "tm webhooks listen leaves its webhook behind",
        "client/task_manager_client/cli/listen.py",
        "            client.delete_webhook(created.webhook.id)\n",
        "            pass\n",
        ("tests/client/test_webhooks.py", "-k", "webhook_of_its_own"),
    ),
    Bug(
        "a signal interrupts the deletion of the webhook of tm webhooks listen",
        "client/task_manager_client/cli/listen.py",
        "        if self._raises:\n            self._raises = False\n",
        "        if True:\n",
        ("tests/client/test_webhooks.py", "-k", "signals_that_come"),
    ),
)
