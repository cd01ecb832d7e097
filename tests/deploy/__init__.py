"""Tests of what deploys the system: the chart and the manifests."""
