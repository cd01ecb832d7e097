"""Defines the Grafana dashboards in Python. `python -m helm.dashboards` writes them as JSON into the chart; a test in tests/deploy compares both."""
