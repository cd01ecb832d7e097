"""The dashboard "gateway": the answers of Envoy to its clients, and the answers of the services to Envoy."""

from typing import Final

from helm.dashboards.model import Dashboard, Panel, Query, Row

# The two listeners for clients, with and without TLS. The third listener is for operators.
CLIENTS: Final = 'HERE, envoy_http_conn_manager_prefix=~"gateway.*"'
SERVICES: Final = 'HERE, envoy_cluster_name=~"auth_service|task_.+"'


def _rate(metric: str, by: str, selector: str = SERVICES) -> str:
    return f"sum by ({by}) (rate({metric}{{{selector}}}[$__rate_interval]))"


def _classes(metric: str, classes: str) -> str:
    of_class = f'{CLIENTS}, envoy_response_code_class="{classes}"'
    return f"sum (rate({metric}{{{of_class}}}[$__rate_interval])) / sum (rate({metric}{{{CLIENTS}}}[$__rate_interval]))"


def _quantiles(metric: str, by: str, selector: str, legend: str) -> list[Query]:
    labels = f"le, {by}" if by else "le"
    return [
        Query(f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{{{selector}}}[$__rate_interval])))", f"{legend}p{round(q * 100)}")
        for q in (0.5, 0.95, 0.99)
    ]


def _breakers(*kinds: str) -> list[Query]:
    return [
        Query(
            f"max by (envoy_cluster_name) (envoy_cluster_circuit_breakers_{priority}_{kind}_open{{{SERVICES}}})",
            f"{{{{envoy_cluster_name}}}} {priority} {kind}",
        )
        for priority in ("default", "high")
        for kind in kinds
    ]


ROWS: Final = (
    Row(
        "Clients",
        (
            Panel(
                "Requests by class",
                [Query(_rate("envoy_http_downstream_rq_xx", "envoy_response_code_class", CLIENTS), "{{envoy_response_code_class}}xx")],
                "reqps",
                "An answer to gRPC is always a 200, also for an error: see the overview.",
                stacked=True,
            ),
            Panel(
                "4xx and 5xx",
                [Query(_classes("envoy_http_downstream_rq_xx", "4"), "4xx"), Query(_classes("envoy_http_downstream_rq_xx", "5"), "5xx")],
                "percentunit",
                "Share of all requests.",
            ),
            Panel(
                "Request duration",
                _quantiles("envoy_http_downstream_rq_time", "", CLIENTS, ""),
                "ms",
                "Includes streams: if there are many, the high quantiles show their duration.",
            ),
            Panel("Connections", [Query(f"sum by (pod) (envoy_http_downstream_cx_active{{{CLIENTS}}})", "{{pod}}")]),
            Panel("Running requests and streams", [Query(f"sum by (pod) (envoy_http_downstream_rq_active{{{CLIENTS}}})", "{{pod}}")]),
            Panel(
                "Bytes",
                [
                    Query(f"sum (rate(envoy_http_downstream_cx_rx_bytes_total{{{CLIENTS}}}[$__rate_interval]))", "received"),
                    Query(f"sum (rate(envoy_http_downstream_cx_tx_bytes_total{{{CLIENTS}}}[$__rate_interval]))", "sent"),
                ],
                "Bps",
            ),
        ),
    ),
    Row(
        "Services",
        (
            Panel("Calls by service", [Query(_rate("envoy_cluster_upstream_rq_total", "envoy_cluster_name"), "{{envoy_cluster_name}}")], "reqps"),
            Panel("Call duration", _quantiles("envoy_cluster_upstream_rq_time", "envoy_cluster_name", SERVICES, "{{envoy_cluster_name}} "), "ms"),
            Panel(
                "Hosts",
                [
                    Query(f"min by (envoy_cluster_name) (envoy_cluster_membership_healthy{{{SERVICES}}})", "{{envoy_cluster_name}} healthy"),
                    Query(f"max by (envoy_cluster_name) (envoy_cluster_membership_total{{{SERVICES}}})", "{{envoy_cluster_name}} all"),
                ],
                about="healthy: the lowest number that a gateway sees. all: the highest number.",
            ),
            Panel(
                "Retries",
                [
                    Query(_rate("envoy_cluster_upstream_rq_retry", "envoy_cluster_name"), "{{envoy_cluster_name}}"),
                    Query(_rate("envoy_cluster_upstream_rq_retry_success", "envoy_cluster_name"), "{{envoy_cluster_name}} with success"),
                    Query(_rate("envoy_cluster_upstream_rq_retry_overflow", "envoy_cluster_name"), "{{envoy_cluster_name}} beyond the budget"),
                ],
                "reqps",
            ),
            Panel(
                "Broken calls and connections",
                [
                    Query(_rate("envoy_cluster_upstream_cx_connect_fail", "envoy_cluster_name"), "{{envoy_cluster_name}} no connection"),
                    Query(_rate("envoy_cluster_upstream_rq_rx_reset", "envoy_cluster_name"), "{{envoy_cluster_name}} reset by it"),
                    Query(_rate("envoy_cluster_upstream_rq_max_duration_reached", "envoy_cluster_name"), "{{envoy_cluster_name}} too long"),
                    Query(_rate("envoy_cluster_upstream_cx_none_healthy", "envoy_cluster_name"), "{{envoy_cluster_name}} no host"),
                ],
                "reqps",
            ),
            Panel(
                "Ejected hosts",
                [Query(f"sum by (envoy_cluster_name) (envoy_cluster_outlier_detection_ejections_active{{{SERVICES}}})", "{{envoy_cluster_name}}")],
                about="Outlier detection has ejected these hosts: they pass their health check but break connections.",
            ),
            Panel(
                "Running calls and streams",
                [Query(f"sum by (envoy_cluster_name) (envoy_cluster_upstream_rq_active{{{SERVICES}}})", "{{envoy_cluster_name}}")],
            ),
            Panel(
                "Open circuit breakers",
                _breakers("cx", "rq", "rq_pending"),
                about="1: the gateway rejects new calls with UNAVAILABLE. `high` is the breaker for streams.",
                width=16,
            ),
        ),
    ),
    Row(
        "Authentication and limits",
        (
            Panel(
                "Tokens",
                [
                    Query(_rate("envoy_http_jwt_authn_allowed", "job", CLIENTS), "let in"),
                    Query(_rate("envoy_http_jwt_authn_denied", "job", CLIENTS), "refused"),
                ],
                "reqps",
            ),
            Panel(
                "Fetches of the public keys",
                [
                    Query(f"sum (increase(envoy_http_jwt_authn_jwks_fetch_success{{{CLIENTS}}}[5m]))", "succeeded"),
                    Query(f"sum (increase(envoy_http_jwt_authn_jwks_fetch_failed{{{CLIENTS}}}[5m]))", "failed"),
                ],
                about="Number in the last 5 minutes.",
            ),
            Panel(
                "Rejected by a rate limit",
                [
                    Query(
                        "sum by (envoy_local_http_ratelimit_prefix, pod) (rate(envoy_http_local_rate_limit_rate_limited{HERE}[$__rate_interval]))",
                        "{{envoy_local_http_ratelimit_prefix}}, {{pod}}",
                    )
                ],
                "reqps",
                "uploads: large bodies of a user. client_address: only if RATE_LIMIT_PER_SECOND is set.",
            ),
        ),
    ),
    Row(
        "Gateway process",
        (
            Panel(
                "Memory used, share of the limit",
                [Query("envoy_overload_envoy_resource_monitors_fixed_heap_pressure{HERE}", "{{pod}}")],
                "percent",
                "At 95 % the gateway rejects new requests.",
                top=100,
                most=95,
            ),
            Panel(
                "Connections, share of the limit",
                [Query("envoy_overload_envoy_resource_monitors_global_downstream_max_connections_pressure{HERE}", "{{pod}}")],
                "percent",
                top=100,
                most=100,
            ),
            Panel(
                "Days until a certificate expires",
                [Query("envoy_server_days_until_first_cert_expiring{HERE} < 10000", "{{pod}}")],
                about="Empty if the gateway has no certificate.",
            ),
        ),
    ),
)

GATEWAY: Final = Dashboard("gateway", "gateway", "Envoy: its answers to clients, and the services' answers to it.", ROWS, marker="envoy_server_live")
