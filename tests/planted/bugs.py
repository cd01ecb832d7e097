"""All planted bugs, grouped by subject. test_bugs.py checks that they still match the source."""

from typing import Final

from tests.planted.api_tokens import API_TOKEN_BUGS
from tests.planted.bug import Bug
from tests.planted.cache import CACHE_BUGS
from tests.planted.calls import CALLS_BUGS
from tests.planted.client import CLIENT_BUGS
from tests.planted.feed import FEED_BUGS
from tests.planted.identity import IDENTITY_BUGS
from tests.planted.projects import PROJECTS_BUGS
from tests.planted.recurrence import RECURRENCE_BUGS
from tests.planted.reminders import REMINDER_BUGS
from tests.planted.transfer import TRANSFER_BUGS
from tests.planted.webhooks import WEBHOOK_BUGS
from tests.planted.writes import WRITES_BUGS

BUGS: Final = (
    *(*CALLS_BUGS, *CACHE_BUGS, *WRITES_BUGS, *FEED_BUGS, *IDENTITY_BUGS, *API_TOKEN_BUGS, *CLIENT_BUGS, *TRANSFER_BUGS),
    *(*RECURRENCE_BUGS, *REMINDER_BUGS, *PROJECTS_BUGS, *WEBHOOK_BUGS),
)

__all__ = ["BUGS", "Bug"]
