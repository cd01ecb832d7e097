"""The dashboard "scaling": what the replicas use; and autoscalers, pods, restarts and backups, from kube-state-metrics.

Metrics that begin with `kube_` come from kube-state-metrics (kube-prometheus-stack includes it), not from our processes. Without it, their panels
are empty.
"""

from typing import Final

from helm.dashboards.model import Dashboard, Panel, Query, Row

# kube-state-metrics has no label `release`. The names of our objects begin with the release.
OURS: Final = "$release-(auth-service|task-service|task-worker|gateway)"
SCALED: Final = f'namespace=~"$namespace", horizontalpodautoscaler=~"{OURS}"'
DEPLOYED: Final = f'namespace=~"$namespace", deployment=~"{OURS}"'
CONTAINERS: Final = f'namespace=~"$namespace", pod=~"{OURS}-.+", container=~"auth-service|task-service|task-worker|gateway"'
SCALER: Final = "kube_horizontalpodautoscaler"

ROWS: Final = (
    Row(
        "Utilisation",
        (
            Panel(
                "CPU of a replica",
                [
                    Query("max by (job) (rate(process_cpu_seconds_total{HERE}[$__rate_interval]))", "{{job}} most"),
                    Query("avg by (job) (rate(process_cpu_seconds_total{HERE}[$__rate_interval]))", "{{job}} on average"),
                ],
                "none",
                "In cores. The autoscaler compares it with the CPU request.",
            ),
            Panel("Replicas that Prometheus reaches", [Query("sum by (job) (up{HERE})", "{{job}}")]),
            Panel(
                "Calls per replica",
                [Query("sum by (job) (rate(grpc_server_handled_total{HERE}[$__rate_interval])) / sum by (job) (up{HERE})", "{{job}}")],
                "reqps",
            ),
        ),
    ),
    Row(
        "Autoscalers (needs kube-state-metrics)",
        (
            Panel(
                "Replicas",
                [
                    Query(f"{SCALER}_status_current_replicas{{{SCALED}}}", "{{horizontalpodautoscaler}}"),
                    Query(f"{SCALER}_status_desired_replicas{{{SCALED}}}", "{{horizontalpodautoscaler}} wanted"),
                ],
                width=12,
            ),
            Panel(
                "Replicas, share of the maximum",
                [Query(f"{SCALER}_status_current_replicas{{{SCALED}}} / {SCALER}_spec_max_replicas{{{SCALED}}}", "{{horizontalpodautoscaler}}")],
                "percentunit",
                width=12,
                top=1,
            ),
        ),
    ),
    Row(
        "Pods (needs kube-state-metrics)",
        (
            Panel(
                "Available and desired",
                [
                    Query(f"kube_deployment_status_replicas_available{{{DEPLOYED}}}", "{{deployment}} available"),
                    Query(f"kube_deployment_spec_replicas{{{DEPLOYED}}}", "{{deployment}} wanted"),
                ],
            ),
            Panel(
                "Restarts, per hour",
                [Query(f"sum by (container) (increase(kube_pod_container_status_restarts_total{{{CONTAINERS}}}[1h]))", "{{container}}")],
            ),
            Panel(
                "Reasons of the last terminations",
                [Query(f"sum by (container, reason) (kube_pod_container_status_last_terminated_reason{{{CONTAINERS}}})", "{{container}} {{reason}}")],
                about="OOMKilled: the memory limit is too low, or the process leaks memory.",
            ),
        ),
    ),
    Row(
        "Jobs (needs kube-state-metrics)",
        (
            Panel(
                "Time since the last backup",
                [
                    Query(
                        'time() - max by (cronjob) (kube_cronjob_status_last_successful_time{namespace=~"$namespace", cronjob=~"$release-backup"})',
                        "{{cronjob}}",
                    )
                ],
                "s",
                width=12,
                most=93_600,
            ),
            Panel(
                "Failed Jobs",
                [Query('sum by (job_name) (kube_job_status_failed{namespace=~"$namespace", job_name=~"$release-.+"})', "{{job_name}}")],
                about="Failed pods of migrations and backups.",
                width=12,
            ),
        ),
    ),
)

SCALING: Final = Dashboard("scaling", "scaling", "Autoscalers, pods, restarts and backups. Most panels need kube-state-metrics.", ROWS)
