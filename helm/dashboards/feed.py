"""The dashboard "feed and sessions": streams of changes, reminders, webhooks, ended sessions, passwords, signing keys, and account events."""

from typing import Final

from helm.dashboards.model import Dashboard, Panel, Query, Row

SUSPICIOUS: Final = "login_failed|attempts_limited|registrations_limited|wrong_password|refresh_token_reused"

ROWS: Final = (
    Row(
        "Streams of changes",
        (
            Panel("Watches", [Query("sum by (pod) (task_watches{HERE})", "{{pod}}")]),
            Panel(
                "Messages sent",
                [Query('sum by (pod) (rate(grpc_server_msg_sent_total{HERE, grpc_method="WatchTasks"}[$__rate_interval]))', "{{pod}}")],
                about="Per second, including heartbeats.",
            ),
            Panel(
                "Wake-ups by source",
                [Query("sum by (by) (rate(task_watch_wakeups_total{HERE}[$__rate_interval]))", "{{by}}")],
                about="process: a write on the same replica. redis: a notification from another replica. poll: found by polling, so Redis lost it.",
            ),
        ),
    ),
    Row(
        "Reminders",
        (
            Panel("Fired", [Query("sum by (pod) (rate(task_reminders_fired_total{HERE}[$__rate_interval]))", "{{pod}}")], about="Per second."),
            Panel(
                "How late",
                [
                    Query(
                        f"histogram_quantile({q}, sum by (le) (rate(task_reminder_late_seconds_bucket{{HERE}}[$__rate_interval])))",
                        f"p{round(q * 100)}",
                    )
                    for q in (0.5, 0.95)
                ],
                "s",
                "The oldest reminder of each transaction. Normally less than a second; after an outage, its duration.",
                most=10,
            ),
            Panel(
                "Users with due reminders",
                [Query("max by (pod) (task_reminder_users_due{HERE})", "{{pod}}")],
                about="At the last look of each worker, at most 5000. A worker looks twice a second, and again after it has fired.",
            ),
        ),
    ),
    Row(
        "Webhooks",
        (
            Panel(
                "Attempts to send, by outcome",
                [Query("sum by (outcome) (rate(webhook_attempts_total{HERE}[$__rate_interval]))", "{{outcome}}")],
                "reqps",
                "A receiver that fails is tried again after 5 s, and then after twice the time, up to an hour.",
                width=6,
            ),
            Panel(
                "How late",
                [
                    Query(f"histogram_quantile({q}, sum by (le) (rate(webhook_lag_seconds_bucket{{HERE}}[$__rate_interval])))", f"p{round(q * 100)}")
                    for q in (0.5, 0.95)
                ],
                "s",
                "From a change to the first attempt to send it. Normally less than a second. Receivers that fail are not counted.",
                width=6,
                most=10,
            ),
            Panel(
                "Duration of an attempt",
                [
                    Query(
                        f"histogram_quantile({q}, sum by (le) (rate(webhook_attempt_seconds_bucket{{HERE}}[$__rate_interval])))", f"p{round(q * 100)}"
                    )
                    for q in (0.5, 0.95)
                ],
                "s",
                "How fast receivers answer. After 15 s an attempt has failed.",
                width=6,
                most=15,
            ),
            Panel(
                "Webhooks with something to send",
                [Query("max (webhooks_due{HERE})", "due"), Query("sum by (pod) (webhooks_held{HERE})", "{{pod}} sends")],
                about="due: no worker sends them yet, at the last look of a worker. A worker sends to 500 at once, of which 250 have failed before.",
                width=6,
            ),
            Panel(
                "Disabled webhooks, per hour",
                [Query("sum (increase(webhooks_disabled_total{HERE}[1h]))", "disabled")],
                about="The receiver answered 410, or no attempt succeeded for 24 hours. The log line `webhook_disabled` has the id of each.",
                width=24,
            ),
        ),
    ),
    Row(
        "Ended sessions",
        (
            Panel(
                "Time since auth_service's events were read",
                [Query("max by (job) (revocations_age_seconds{HERE})", "{{job}}")],
                "s",
                "Replicas read the events every second. For up to this time a replica still accepts tokens of an ended session.",
                most=30,
            ),
            Panel(
                "Remembered ended sessions", [Query("max by (job) (revocations{HERE})", "{{job}}")], about="Sessions that ended within 16 minutes."
            ),
            Panel(
                "Age of the public keys in task_service",
                [Query("max by (job) (jwks_age_seconds{HERE})", "{{job}}")],
                "s",
                "task_service fetches the keys every minute.",
                most=300,
            ),
        ),
    ),
    Row(
        "Passwords",
        (
            Panel(
                "Duration of a hash, including its wait",
                [
                    Query(
                        f"histogram_quantile({q}, sum by (le) (rate(password_hash_seconds_bucket{{HERE}}[$__rate_interval])))", f"p{round(q * 100)}"
                    )
                    for q in (0.5, 0.95, 0.99)
                ],
                "s",
            ),
            Panel(
                "Hashes computed or waiting",
                [
                    Query("sum by (pod) (password_hashes_under_way{HERE})", "{{pod}}"),
                    Query("max (password_hashes_limit{HERE})", "limit of a replica"),
                ],
            ),
            Panel(
                "Rejected hashes",
                [Query("sum by (pod) (rate(password_hashes_refused_total{HERE}[$__rate_interval]))", "{{pod}}")],
                "reqps",
                "Too many passwords waited to be hashed. The call fails with RESOURCE_EXHAUSTED.",
            ),
        ),
    ),
    Row(
        "Accounts",
        (
            Panel(
                "Security events",
                [Query("sum by (event) (rate(auth_security_events_total{HERE}[$__rate_interval]))", "{{event}}")],
                "reqps",
                width=12,
            ),
            Panel(
                "Signs of an attack, per hour",
                [Query(f'sum by (event) (increase(auth_security_events_total{{HERE, event=~"{SUSPICIOUS}"}}[1h]))', "{{event}}")],
                about="The log line `security_event` has the address and the account of each.",
                width=12,
            ),
        ),
    ),
    Row(
        "Signing keys",
        (
            Panel(
                "Age of the signing key",
                [Query("max (signing_key_age_seconds{HERE})", "age"), Query("max (signing_key_rotation_seconds{HERE})", "rotation")],
                "s",
                width=12,
            ),
            Panel("Replicas that have a key", [Query('sum by (job) (service_ready_check{HERE, check="signing keys"})', "{{job}}")], width=12),
        ),
    ),
)

FEED: Final = Dashboard("feed", "feed and sessions", "Streams of changes, reminders, webhooks, ended sessions, passwords and keys.", ROWS)
