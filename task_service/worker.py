"""Wires the parts of the worker of the task service by constructor. `python -m task_service work` runs it."""

from uuid_utils.compat import uuid7

from servicekit.access.seal import Seal
from servicekit.process import app
from servicekit.process.periodic import Periodic
from servicekit.rpc.admission import NoTokens
from servicekit.rpc.metrics import registry
from servicekit.stores.migrate import packaged
from servicekit.stores.redis import Redis
from servicekit.stores.wakeups import Announcements
from task_service.feed.watching import channel_of
from task_service.reminders import service as reminding
from task_service.reminders.repository import PostgresReminders
from task_service.reminders.service import Reminders
from task_service.settings import WorkerSettings
from task_service.webhooks import sending
from task_service.webhooks.messages import body_of_change, body_of_test
from task_service.webhooks.posting import Poster
from task_service.webhooks.repository import PostgresLeases
from task_service.webhooks.sending import Sender
from task_service.webhooks.signing import WebhookSeal


def parts(settings: WorkerSettings) -> app.Parts:
    """Returns the worker's own parts, wired. It serves nothing but its health."""
    metrics = registry()
    database = app.database(settings, metrics)
    probe, schema_is_there = app.database_check(settings, packaged("task", "task_service"))
    redis = Redis(settings.redis_url.get_secret_value(), metrics, traced=settings.otel_exporter_otlp_endpoint is not None)
    announcements = Announcements(redis)
    reminders = Reminders(PostgresReminders(database), lambda user_id: announcements.announce(channel_of(user_id)), metrics)
    firing = Periodic("reminders", reminders.round, interval_seconds=reminding.INTERVAL_SECONDS)
    poster = Poster(settings.allowed_networks(settings.environment))
    seal = WebhookSeal(Seal(settings.key_encryption_keys))
    sender = Sender(PostgresLeases(database), poster.post, seal, (body_of_change, body_of_test), uuid7, metrics)
    telling = Periodic("webhooks", sender.round, interval_seconds=sending.INTERVAL_SECONDS)
    renewing = Periodic("webhook leases", sender.renew, interval_seconds=sending.RENEWAL_SECONDS)
    return app.Parts(
        handlers=[],
        verifier=NoTokens(),
        registry=metrics,
        # Closed in reverse: the sender after what starts its work, and before what that needs.
        resources=[probe, redis, database, announcements, firing, poster, renewing, sender, telling],
        checks={"postgres": schema_is_there},
    )
