"""The dashboard "stores": PostgreSQL and Redis as the services see them, and the services' background jobs."""

from typing import Final

from helm.dashboards.model import Dashboard, Panel, Query, Row

READS: Final = "task_cache_reads_total"


def _wait(quantile: float) -> Query:
    promql = f"histogram_quantile({quantile}, sum by (le, job) (rate(db_pool_wait_seconds_bucket{{HERE}}[$__rate_interval])))"
    return Query(promql, f"{{{{job}}}} p{round(quantile * 100)}")


ROWS: Final = (
    Row(
        "PostgreSQL",
        (
            Panel(
                "Connections in use",
                [
                    Query('sum by (pod) (db_pool_connections{HERE, state="in_use"})', "{{pod}}"),
                    Query("max by (job) (db_pool_connections_limit{HERE})", "{{job}} limit of a replica"),
                ],
            ),
            Panel("Connections idle", [Query('sum by (pod) (db_pool_connections{HERE, state="idle"})', "{{pod}}")]),
            Panel(
                "Connections of all replicas",
                [Query("sum (db_pool_connections{HERE})", "open"), Query("sum (db_pool_connections_limit{HERE})", "at most")],
                about="The sum must stay below PostgreSQL's max_connections.",
            ),
            Panel("Calls that wait for a connection", [Query("sum by (pod) (db_pool_waiting{HERE})", "{{pod}}")]),
            Panel("Wait for a connection", [_wait(0.5), _wait(0.95), _wait(0.99)], "s", "Includes the time to open a new connection."),
            Panel(
                "Replicas connected to PostgreSQL",
                [Query('sum by (job) (service_ready_check{HERE, check="postgres"})', "{{job}}")],
                about="They also find the schema version that they need.",
            ),
        ),
    ),
    Row(
        "Redis",
        (
            Panel(
                "Breakers open",
                [Query("sum by (job) (redis_breaker_open{HERE})", "{{job}}")],
                about="Replicas whose circuit breaker is open: they work without Redis.",
            ),
            Panel("Failed commands", [Query("sum by (job) (increase(redis_failures_total{HERE}[$__rate_interval]))", "{{job}}")]),
            Panel(
                "Login limits decided without Redis",
                [Query("sum by (job) (rate(rate_limit_local_total{HERE}[$__rate_interval]))", "{{job}}")],
                "reqps",
                "Without Redis each replica counts alone: n replicas allow n times the limit.",
            ),
        ),
    ),
    Row(
        "Cache of tasks",
        (
            Panel(
                "Reads by outcome",
                [Query("sum by (outcome) (rate(task_cache_reads_total{HERE}[$__rate_interval]))", "{{outcome}}")],
                "reqps",
                "hit: from Redis; all others from PostgreSQL. absent: then cached. leased: another read caches it. fenced: a write was running. "
                "generation: a value of another release. off: the cache is not ON. expired: what the replica knows of the mode is too old. "
                "process: Redis is another process. unavailable: Redis is away.",
                width=12,
                stacked=True,
            ),
            Panel(
                "Hits",
                [
                    Query(
                        f'sum (rate({READS}{{HERE, outcome="hit"}}[$__rate_interval])) / sum (rate({READS}{{HERE}}[$__rate_interval]))',
                        "of all reads",
                    )
                ],
                "percentunit",
                width=12,
                top=1,
            ),
            Panel(
                "Mode",
                [Query("sum by (mode) (task_cache_mode{HERE})", "{{mode}}")],
                about="How many replicas know the cache as OFF, ARMED (writes prepare for ON) or ON. All share one mode: see docs/runbook.md.",
            ),
            Panel("Time not ON", [Query("max (rate(task_cache_off_seconds_total{HERE}[$__rate_interval]))", "of all time")], "percentunit", top=1),
            Panel(
                "Generations per hour",
                [Query("3600 * max (rate(task_cache_generations_total{HERE}[$__rate_interval]))", "of one replica")],
                about="Each outage of Redis makes two. Values of an earlier generation are not used any more.",
            ),
        ),
    ),
    Row(
        "Background work",
        (
            Panel(
                "Time since it last succeeded",
                [Query("max by (job, work) (periodic_success_age_seconds{HERE})", "{{job}} {{work}}")],
                "s",
                "A rising line: the job fails or hangs. The log has `periodic_failed` once for each new cause.",
                width=24,
            ),
        ),
    ),
)

STORES: Final = Dashboard("stores", "stores", "PostgreSQL and Redis as the services see them.", ROWS)
