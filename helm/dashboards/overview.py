"""The dashboard "overview": rate, errors and duration (RED) of each service and method, streams, and processes."""

from typing import Final

from helm.dashboards.model import Dashboard, Panel, Query, Row

# The codes that count as server errors; all others are the caller's errors. A caller with a short deadline also gets DeadlineExceeded: compare the
# latency.
OURS: Final = "Internal|Unknown|Unavailable|DeadlineExceeded|DataLoss"
UNARY: Final = 'HERE, grpc_type="unary"'


def _quantile(quantile: float, by: str, selector: str = UNARY) -> str:
    return f"histogram_quantile({quantile}, sum by (le, {by}) (rate(grpc_server_handling_seconds_bucket{{{selector}}}[$__rate_interval])))"


ROWS: Final = (
    Row(
        "Health",
        (
            Panel("Replicas ready", [Query("sum by (job) (service_ready{HERE})", "{{job}}")], kind="stat", width=6),
            Panel(
                "Calls per second",
                [Query(f"sum by (job) (rate(grpc_server_handled_total{{{UNARY}}}[$__rate_interval]))", "{{job}}")],
                "reqps",
                kind="stat",
                width=6,
            ),
            Panel(
                "Share of failed calls",
                [
                    Query(
                        f'sum by (job) (rate(grpc_server_handled_total{{{UNARY}, grpc_code=~"{OURS}"}}[$__rate_interval]))'
                        f" / sum by (job) (rate(grpc_server_handled_total{{{UNARY}}}[$__rate_interval]))",
                        "{{job}}",
                    )
                ],
                "percentunit",
                "Share of all calls except streams. The objective is that 99.9 % succeed: see docs/runbook.md.",
                kind="stat",
                width=6,
                most=0.001,
            ),
            Panel(
                "p99",
                [Query(_quantile(0.99, "job"), "{{job}}")],
                "s",
                "All calls except streams. Logins are slow because they hash passwords.",
                kind="stat",
                width=6,
            ),
        ),
    ),
    Row(
        "Calls",
        (
            Panel(
                "Rate by method",
                [Query(f"sum by (grpc_method) (rate(grpc_server_handled_total{{{UNARY}}}[$__rate_interval]))", "{{grpc_method}}")],
                "reqps",
                stacked=True,
            ),
            Panel(
                "Server errors",
                [
                    Query(
                        f'sum by (grpc_method, grpc_code) (rate(grpc_server_handled_total{{{UNARY}, grpc_code=~"{OURS}"}}[$__rate_interval]))',
                        "{{grpc_method}} {{grpc_code}}",
                    )
                ],
                "reqps",
                "Unavailable: a store is down. DeadlineExceeded: too slow for the caller. Internal: a defect; the log has its cause.",
            ),
            Panel(
                "Client errors",
                [
                    Query(
                        f'sum by (grpc_code) (rate(grpc_server_handled_total{{{UNARY}, grpc_code!~"OK|{OURS}"}}[$__rate_interval]))', "{{grpc_code}}"
                    )
                ],
                "reqps",
                "ResourceExhausted has two causes: the caller reached a limit, or the replica reached its capacity.",
            ),
            Panel("p50, p95, p99 by service", [Query(_quantile(q, "job"), f"{{{{job}}}} p{round(q * 100)}") for q in (0.5, 0.95, 0.99)], "s"),
            Panel("p95 by method", [Query(_quantile(0.95, "grpc_method"), "{{grpc_method}}")], "s"),
            Panel("p99 by method", [Query(_quantile(0.99, "grpc_method"), "{{grpc_method}}")], "s"),
            Panel(
                "Running calls by service",
                [
                    Query("sum by (job) (grpc_server_calls_in_flight{HERE})", "{{job}}"),
                    Query("sum by (job) (grpc_server_calls_limit{HERE})", "{{job}} limit"),
                ],
                about="A replica rejects calls beyond its limit with RESOURCE_EXHAUSTED.",
            ),
            Panel(
                "Started calls by method",
                [Query("sum by (grpc_method) (rate(grpc_server_started_total{HERE}[$__rate_interval]))", "{{grpc_method}}")],
                "reqps",
            ),
            Panel(
                "Completed calls by pod",
                [Query(f"sum by (pod) (rate(grpc_server_handled_total{{{UNARY}}}[$__rate_interval]))", "{{pod}}")],
                "reqps",
                "The pods should get about the same rate. If not, the gateway does not balance the calls.",
            ),
        ),
    ),
    Row(
        "Streams",
        (
            Panel(
                "Open streams",
                [
                    Query("sum by (pod) (grpc_server_streams_in_flight{HERE})", "{{pod}}"),
                    Query("max (grpc_server_streams_limit{HERE})", "limit of a replica"),
                ],
            ),
            Panel(
                "Messages per second", [Query("sum by (grpc_method) (rate(grpc_server_msg_sent_total{HERE}[$__rate_interval]))", "{{grpc_method}}")]
            ),
            Panel(
                "Ended, by code",
                [Query('sum by (grpc_code) (rate(grpc_server_handled_total{HERE, grpc_type="server_stream"}[$__rate_interval]))', "{{grpc_code}}")],
                about="Cancelled: the client closed it. Unauthenticated: the token expired. Unavailable: the replica stopped or lost its database.",
            ),
        ),
    ),
    Row(
        "Processes",
        (
            Panel(
                "Failing readiness checks",
                [Query("service_ready_check{HERE} == 0", "{{pod}} {{check}}")],
                about="Empty in normal operation. A replica is ready only while all of its checks pass.",
            ),
            Panel(
                "Versions",
                [Query("count by (job, version) (task_manager_build_info{HERE})", "{{job}} {{version}}")],
                about="A job has two versions during a roll-out or with a canary.",
            ),
            Panel("Up", [Query("sum by (job) (up{HERE})", "{{job}}")], about="Replicas that Prometheus can scrape."),
            Panel(
                "CPU",
                [Query("rate(process_cpu_seconds_total{HERE}[$__rate_interval])", "{{pod}}")],
                "none",
                "In cores. A replica is one process and uses about one core.",
            ),
            Panel("Memory", [Query("process_resident_memory_bytes{HERE}", "{{pod}}")], "bytes"),
            Panel("Open files", [Query("process_open_fds{HERE} / process_max_fds{HERE}", "{{pod}}")], "percentunit", top=1),
        ),
    ),
)

OVERVIEW: Final = Dashboard("overview", "overview", "Rate, errors and duration of auth_service and task_service.", ROWS)
