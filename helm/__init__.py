"""Tools for the chart: they render manifests/ for `kubectl apply -k`, write the table of values, lint the chart, and prepare its release."""
