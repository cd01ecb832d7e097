"""Overview: is it well? Rate, errors and duration (RED) of each service and method, streams, and the processes themselves."""

from typing import Final

from helm.dashboards.model import Dashboard, Panel, Query, Row

# What is our fault, and what the caller's. A caller's own short deadline ends in DeadlineExceeded as well: look at the latency beside it.
OURS: Final = "Internal|Unknown|Unavailable|DeadlineExceeded|DataLoss"
UNARY: Final = 'HERE, grpc_type="unary"'


def _quantile(quantile: float, by: str, selector: str = UNARY) -> str:
    return f"histogram_quantile({quantile}, sum by (le, {by}) (rate(grpc_server_handling_seconds_bucket{{{selector}}}[$__rate_interval])))"


ROWS: Final = (
    Row(
        "Is it well",
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
                "Calls that we failed",
                [
                    Query(
                        f'sum by (job) (rate(grpc_server_handled_total{{{UNARY}, grpc_code=~"{OURS}"}}[$__rate_interval]))'
                        f" / sum by (job) (rate(grpc_server_handled_total{{{UNARY}}}[$__rate_interval]))",
                        "{{job}}",
                    )
                ],
                "percentunit",
                "Of all calls that are not streams. The objective is 99.9 %: see docs/runbook.md.",
                kind="stat",
                width=6,
                most=0.001,
            ),
            Panel(
                "p99",
                [Query(_quantile(0.99, "job"), "{{job}}")],
                "s",
                "Of all calls that are not streams; logins hash passwords.",
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
                "Errors that are ours",
                [
                    Query(
                        f'sum by (grpc_method, grpc_code) (rate(grpc_server_handled_total{{{UNARY}, grpc_code=~"{OURS}"}}[$__rate_interval]))',
                        "{{grpc_method}} {{grpc_code}}",
                    )
                ],
                "reqps",
                "Unavailable: a store is away. DeadlineExceeded: too slow for the caller. Internal: a defect; its cause is in the log.",
            ),
            Panel(
                "Errors that are the caller's",
                [
                    Query(
                        f'sum by (grpc_code) (rate(grpc_server_handled_total{{{UNARY}, grpc_code!~"OK|{OURS}"}}[$__rate_interval]))', "{{grpc_code}}"
                    )
                ],
                "reqps",
                "ResourceExhausted can be either: a limit that the caller ran into, or all that we can do at once.",
            ),
            Panel("p50, p95, p99 by service", [Query(_quantile(q, "job"), f"{{{{job}}}} p{round(q * 100)}") for q in (0.5, 0.95, 0.99)], "s"),
            Panel("p95 by method", [Query(_quantile(0.95, "grpc_method"), "{{grpc_method}}")], "s"),
            Panel("p99 by method", [Query(_quantile(0.99, "grpc_method"), "{{grpc_method}}")], "s"),
            Panel(
                "Begun and not ended",
                [
                    Query("sum by (job) (grpc_server_calls_in_flight{HERE})", "{{job}}"),
                    Query("sum by (job) (grpc_server_calls_limit{HERE})", "{{job}} limit"),
                ],
                about="Beyond the limit of a replica calls are refused as RESOURCE_EXHAUSTED.",
            ),
            Panel(
                "Begun by method",
                [Query("sum by (grpc_method) (rate(grpc_server_started_total{HERE}[$__rate_interval]))", "{{grpc_method}}")],
                "reqps",
            ),
            Panel(
                "By pod",
                [Query(f"sum by (pod) (rate(grpc_server_handled_total{{{UNARY}}}[$__rate_interval]))", "{{pod}}")],
                "reqps",
                "Alike, or the gateway's balance is off.",
            ),
        ),
    ),
    Row(
        "Streams",
        (
            Panel(
                "Under way",
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
                about="Cancelled: the client left. Unauthenticated: its token's time was over. Unavailable: the replica stops, or lost its database.",
            ),
        ),
    ),
    Row(
        "Processes",
        (
            Panel(
                "Checks that fail",
                [Query("service_ready_check{HERE} == 0", "{{pod}} {{check}}")],
                about="Empty is good. A replica is ready while all of its checks pass.",
            ),
            Panel(
                "Versions",
                [Query("count by (job, version) (task_manager_build_info{HERE})", "{{job}} {{version}}")],
                about="Two of one job while it is rolled out, or by a canary.",
            ),
            Panel("Up", [Query("sum by (job) (up{HERE})", "{{job}}")], about="Replicas that Prometheus reaches."),
            Panel(
                "CPU",
                [Query("rate(process_cpu_seconds_total{HERE}[$__rate_interval])", "{{pod}}")],
                "none",
                "In cores. A replica is one process and uses about one.",
            ),
            Panel("Memory", [Query("process_resident_memory_bytes{HERE}", "{{pod}}")], "bytes"),
            Panel("Open files", [Query("process_open_fds{HERE} / process_max_fds{HERE}", "{{pod}}")], "percentunit", top=1),
        ),
    ),
)

OVERVIEW: Final = Dashboard("overview", "overview", "Is it well? Rate, errors and duration of auth_service and task_service.", ROWS)
