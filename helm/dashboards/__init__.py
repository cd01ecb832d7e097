"""Grafana's dashboards, described in Python and kept as JSON in the chart: `python -m helm.dashboards` writes them, tests/deploy compares."""
